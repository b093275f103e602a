"""What leaves a party with a flag: padded parts to the other evaluator, components to the client, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from puma.engine.engine import Engine
from puma.engine.request import Request
from puma.models.formats import Formats
from puma.mpc.party import Party
from puma.mpc.share import Share
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Generate
from puma.wire.parameters import tensor_specs
from tests.engine.stepping import Asked, asked
from tests.trio import given, joined, parties, trio

QUIET, LOUD = [3, 4, 5], [3, 7, 5]


@pytest.fixture(scope="module")
def clear(checkpoints: dict[str, Path]) -> PlainModel:
    """Its token 7 is ten times as long as the first norm's reach."""
    model = PlainModel(checkpoints["llama"])
    params = dict(model.params)
    words = params["model.embed_tokens.weight"].clone()
    words[7] = torch.tensor([100.0, -100.0]).repeat(words.shape[1] // 2)
    vars(model)["params"] = params | {"model.embed_tokens.weight": words}
    model.config = msgspec.structs.replace(model.config, formats=Formats(places={"model.layers.0.input_layernorm": 6}))
    return model


def engine(clear: PlainModel, party: Party) -> Engine:
    specs = tensor_specs(clear.config)
    return Engine(
        party, clear.config, {t.name: given(party, clear.params[t.name], t.bits, t.frac, t.name) for t in specs}
    )


def stepped(clear: PlainModel, job: Asked, members: list[Party]) -> list[Any]:
    """Of each party the flags of one step, their bare parts, and rounds and bytes of resharing these."""

    def work(party: Party) -> tuple[Share, Any, Any]:
        request, bare, made = job.at(party), list[Any](), engine(clear, party)
        flag = made._flag

        def noted(requests: list[Request]) -> None:
            bare.append([r.flags.part.clone() for r in requests])  # type: ignore[union-attr]
            before = party.ledger.total()
            flag(requests)
            after = party.ledger.total()
            bare.append((after.rounds - before.rounds, after.online - before.online, after.offline - before.offline))

        made._flag = noted  # type: ignore[method-assign]
        with party.stage("step 0"):
            made.step([request])
        assert isinstance(request.flags, Share)
        return request.flags, bare[0], bare[1]

    return parties(work, members)


def test_flags_leave_under_fresh_pads(clear: PlainModel) -> None:
    """What both evaluators then hold is their sum and pads that the other lacks, and no two runs agree in it."""
    masked = []
    for secret in (b"\x11" * 32, b"\x12" * 32):
        job = asked(clear, [QUIET, LOUD], lambda given: Generate(given, 1))
        found = stepped(clear, job, trio({(0, 1): secret, (0, 2): bytes(byte + 8 for byte in secret)}))
        flags, parts = [f[0] for f in found], [f[1] for f in found]
        assert (joined(flags) != 0).tolist() == [False, True]
        bare = parts[1][0] + parts[2][0]
        assert torch.equal(bare, flags[1].m - flags[0].mask)
        assert not bool((flags[1].m == bare).any()), "the sum is open"
        assert all(bool((mask != 0).all()) for mask in flags[0].components)
        masked.append(flags[1].m)
    assert not bool((masked[0] == masked[1]).any())


def test_parties_hear_nothing_of_a_flag(clear: PlainModel) -> None:
    """Whether a flag is set changes no message's size: one round of one word for each prompt, and no correction."""
    counts = []
    for prompts in ([QUIET, QUIET], [QUIET, LOUD]):
        found = stepped(clear, asked(clear, prompts, lambda given: Generate(given, 1)), trio())
        counts.append([f[2] for f in found])
    assert counts[0] == counts[1]
    assert counts[0] == [(0, 0, 0), (1, 16, 0), (1, 16, 0)]
