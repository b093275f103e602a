"""Models of every architecture with a reach at every place: they answer as before, for less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from puma import LocalCluster
from puma.client.beam_search import Beams
from puma.engine.dry_run import dry_run
from puma.models import heads
from puma.models.ranges import hides
from puma.reference.fixed_session import FixedSession
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Encode, Generate, Input
from tests.measured import measured
from tests.models import zoo
from tests.threads import Threads

PROMPTS = [[2, 5, 7, 9, 27], [3, 3, 8], [26, 1, 4, 2]]
CAUSAL = ["t5-gated", "t5", "qwen3", "gemma2", "mistral", "opt", "neox", "llama3"]
ENCODERS = ["Bert-SequenceClassification", "Albert-TokenClassification", "roberta"]


def fitted(tmp_path: Path, name: str, margin: int = 3) -> PlainModel:
    clear = PlainModel(zoo.write(tmp_path, name))
    clear.config = measured(clear.config, clear.plain, PROMPTS, margin)
    return clear


def bytes_of(config: Any) -> int:
    generates = heads(config).generates
    job = Generate(Input([6], []), 2) if generates else Encode(Input([6], []), "hidden")
    return sum(s.online + s.offline for party in dry_run(config, job) for s in party)


@pytest.mark.parametrize("name", [n for n in CAUSAL + ENCODERS if n in zoo.ALL])
def test_they_answer_as_before_for_less(name: str, tmp_path: Path) -> None:
    clear = fitted(tmp_path, name)
    usual = PlainModel(zoo.write(tmp_path, name)).config
    exact, alone = Plain(usual, clear.plain), FixedSession(clear.config, clear.plain)
    before = FixedSession(usual, clear.plain)
    for ids in PROMPTS:
        (plain,) = exact.encode([ids], "hidden")
        (states,), (others,) = alone.encode([ids], "hidden"), before.encode([ids], "hidden")
        error, was = (float((found - plain).abs().max()) for found in (states, others))
        assert error < 1.5 * was + 2e-3, (error, was)
        if heads(usual).generates:
            assert list(alone.continued([ids], 4)) == list(exact.continued([ids], 4))
    assert all(note.used < 1 for note in alone.notes), [note for note in alone.notes if note.used >= 1]
    assert bytes_of(clear.config) < 0.97 * bytes_of(usual)


@pytest.mark.parametrize("name", ["t5-gated", "mistral", "gemma2"])
def test_three_parties_answer_and_search_with_any_formats(name: str, tmp_path: Path) -> None:
    clear = fitted(tmp_path, name)
    ids = clear.prompt_ids("the cat sat", 4)
    expected = Beams(3, 4, clear.eos)
    list(clear.session.search(ids, expected, stop=True))
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        assert cluster.search("the cat sat", 4, beams=3).token_ids == expected.best
        found = cluster.generate("the cat sat", 4)
        assert found.token_ids == clear.greedy(ids, 4)
        dry = dry_run(clear.config, Generate(Input([len(ids)], []), 4))
        assert [sum(s.online + s.offline for s in party) for party in dry] == cluster.cost.per_party  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ENCODERS)
def test_secret_lengths_with_any_formats(name: str, tmp_path: Path) -> None:
    clear = fitted(tmp_path, name)
    assert hides(clear.config, clear.params)
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        for text, found in zip(
            ("the cat sat", "a dog"), cluster.encode(["the cat sat", "a dog"], lengths="secret"), strict=True
        ):
            assert_close(found.values, clear.encoded(clear.sentence_ids(text)), atol=0.03, rtol=0)


def test_a_prompt_of_secret_length_with_any_formats(tmp_path: Path) -> None:
    clear = fitted(tmp_path, "mistral")
    ids = clear.prompt_ids("the cat sat", 3)
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        found = cluster.session.continued([ids], 3, lengths="secret")
        assert [row[0] for row in found] == clear.greedy(ids, 3)


def test_a_tight_place_is_noted_when_it_is_left(tmp_path: Path) -> None:
    clear = fitted(tmp_path, "mistral", margin=0)
    for name in clear.plain:
        if name.endswith("gate_proj.weight"):
            clear.plain[name].mul_(torch.tensor(200.0))  # type: ignore[index]
    alone = FixedSession(clear.config, clear.plain)
    alone.encode([PROMPTS[0]], "hidden")
    assert any(note.used >= 1 and "input of" in note.what for note in alone.notes)
