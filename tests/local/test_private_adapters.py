"""A secret adapter beside an open base: what the merged model answers, with no weight of the adapter in the open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch.testing import assert_close

from puma import LocalCluster
from puma.engine.dry_run import dry_run
from puma.errors import StoreError, UnsupportedModel
from puma.models import architecture, in_the_open, with_layers
from puma.models.checkpoint import load
from puma.models.config import Llama
from puma.models.unfolded.apart import apart
from puma.mpc.public import Public
from puma.mpc.seeded import Seeded
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Generate, Input
from puma.wire.parameters import of_adapter, offered_specs
from tests.models import tiny
from tests.models.lora.adapters import low, write
from tests.models.unfolded.test_laid import halved
from tests.threads import Threads

PROMPT = "the cat sat"
LAYER = "model.layers.0"
WIDE = {"self_attn.q_proj": (24, 24), "self_attn.v_proj": (12, 24), "self_attn.o_proj": (24, 24),
        "mlp.up_proj": (20, 24), "mlp.down_proj": (24, 20)}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return halved(tiny.llama(tmp_path_factory.mktemp("base"), num_hidden_layers=1), torch.bfloat16)


def adapter(folder: Path, seed: int = 0, names: tuple[str, ...] = tuple(WIDE), **settings: Any) -> Path:
    tensors = {}
    for i, name in enumerate(names):
        tensors |= low(f"{LAYER}.{name}", *WIDE[name], seed=10 * seed + i)
    return write(folder, tensors, **settings)


def test_it_is_the_merged_model_in_the_clear(base: Path, tmp_path: Path) -> None:
    """Folded apart: norms, scales of queries, alpha over rank."""
    source = adapter(tmp_path / "one", lora_alpha=9)
    ranks, tensors = apart(load(base), source)
    assert ranks == {f"{LAYER}.{name}": 3 for name in WIDE}
    merged, own = PlainModel(base, source), PlainModel(base)
    config = msgspec.structs.replace(own.config, formats=msgspec.structs.replace(own.config.formats, adapted=ranks))
    ids = own.prompt_ids(PROMPT, 1)
    apart_, together = (
        Plain(c, p).encode([ids], "hidden")[0]
        for c, p in ((config, {**own.plain, **tensors}), (merged.config, merged.plain))
    )
    assert_close(apart_, together, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together, Plain(own.config, own.plain).encode([ids], "hidden")[0], atol=1e-2)


def test_three_parties_answer_as_the_merged_model_and_hold_it_in_two_parts(base: Path, tmp_path: Path) -> None:
    """Several adapters over one base, which lies with the parties once."""
    with Threads() as trio:
        for seed in (1, 2):
            clear = PlainModel(base, adapter(tmp_path / str(seed), seed))
            cluster = LocalCluster(clear, trio=trio, weights="open")  # type: ignore[arg-type]
            ids = clear.prompt_ids(PROMPT, 2)
            assert cluster.generate(PROMPT, 2).token_ids == clear.greedy(ids, 2)
            counted = dry_run(cluster.session.served, Generate(Input([len(ids)], []), 2))
            assert list(cluster.cost.per_party) == [sum(s.online + s.offline for s in each) for each in counted]
            assert cluster.cost.rounds == max(sum(s.rounds for s in each) for each in counted)
            params = dict(zip(architecture(cluster.session.served).parameters(cluster.session.served),
                              trio.servers[1].engine.params, strict=True))  # type: ignore[union-attr]  # fmt: skip
            kinds = {name: type(param) for name, param in params.items()}
            assert all(kinds[name] is (Seeded if of_adapter(name) else Public) for name in kinds)


def test_only_the_adapter_is_shared(base: Path, tmp_path: Path) -> None:
    ranks, tensors = apart(load(base), adapter(tmp_path, names=("self_attn.q_proj",)))
    config = in_the_open(load(base).config)
    config = msgspec.structs.replace(config, formats=msgspec.structs.replace(config.formats, adapted=ranks))
    assert {spec.name for spec in offered_specs(config)} == {*tensors, "puma.check"}
    assert with_layers(config, 1).formats.adapted == ranks
    assert set(with_layers(msgspec.structs.replace(config, layers=3), 2).formats.adapted) == set(ranks)


def test_what_cannot_stand_beside_a_matrix_is_refused(base: Path, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", {f"{LAYER}.self_attn.q_proj.weight": torch.zeros(24, 24)})
    with pytest.raises(UnsupportedModel, match="does more to"):
        apart(load(base), whole)
    normed = tiny.gpt2(tmp_path / "gpt2", num_hidden_layers=1)
    turned = write(tmp_path / "turned", low("transformer.h.0.mlp.c_fc", 96, 24), fan_in_fan_out=True)
    with pytest.raises(UnsupportedModel, match=r"nothing can stand|a norm with a bias"):
        apart(load(normed), turned)


def test_an_adapter_without_its_base_is_refused(memory: Path, base: Path, tmp_path: Path) -> None:
    """It names the base by what the parties call it; another one of the same name is another one."""
    clear = PlainModel(base, adapter(tmp_path))
    with Threads(memory) as trio:
        cluster = LocalCluster(clear, trio=trio, weights="open")  # type: ignore[arg-type]
        card = cluster.session.card
        assert card is not None and card.base is not None and card.weights is not None
        held = [server.library.store.names() for server in trio.servers]  # type: ignore[union-attr]
        assert held[0] == held[1] == held[2] and len(held[0]) == 2
    for rank in range(3):
        for path in (memory / f"p{rank}" / "models").glob("base-*"):
            path.rename(path.with_name(f".gone-{path.name}"))
    with Threads(memory) as trio, pytest.raises(StoreError, match="which is not here as it was"):
        trio.session.open(card.name)


def test_what_an_adapter_costs() -> None:
    """Two small products, two rounds or three for each matrix, a part of the dealer's; rank hardly counts."""
    sizes: dict[str, Any] = {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "heads": 32,
        "layers": 1,
    }
    config, job = in_the_open(Llama(**sizes)), Generate(Input([8], []), 1)
    totals = {}
    for rank in (0, 8, 64):
        names = [f"{LAYER}.self_attn.{part}_proj" for part in "qkvo"] if rank else []
        formats = msgspec.structs.replace(config.formats, adapted=dict.fromkeys(names, rank))
        spent = dry_run(msgspec.structs.replace(config, formats=formats), job)
        sent, rounds = (
            (sum(s.online + s.offline for s in each) for each in spent),
            (sum(s.rounds for s in e) for e in spent),
        )
        totals[rank] = sum(sent), max(rounds)
    assert totals[0][0] < totals[8][0] < 1.1 * totals[0][0] and totals[64][0] < 1.02 * totals[8][0]
    assert totals[8][1] == totals[64][1] <= totals[0][1] + 3 * 4
