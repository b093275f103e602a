"""The owner's resume file: what goes on under the seeds that it holds, and what begins anew under fresh ones."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from puma.client.owner import card_of
from puma.client.resume import Plan, Resume, plaintext_digest
from puma.errors import StoreError
from puma.models.config import Llama
from puma.wire.messages import TensorSpec

CONFIG = Llama(vocab_size=8, hidden_size=8, intermediate_size=8, layers=1, heads=2)
CARD = card_of("m", "1", {"tokenizer.json": b"{}"})
SPECS = [TensorSpec("a", (3,), 48, 18), TensorSpec("b", (2,), 48, 32)]
PARAMS = {"a": torch.ones(3), "b": torch.zeros(2)}


def plan(card: object = CARD, specs: list[TensorSpec] = SPECS) -> Plan:
    return Plan.fresh(card, CONFIG, specs, {})  # type: ignore[arg-type]


def test_masks_never_cover_two_plaintexts(tmp_path: Path) -> None:
    path = tmp_path / "state" / "m"
    first = Resume(path, plan(), PARAMS)
    first.begin("a", PARAMS["a"])
    assert path.stat().st_mode & 0o077 == 0
    same = Resume(path, plan(), PARAMS)
    assert same.resumed and same.plan == first.plan and same.begun == {"a": plaintext_digest(PARAMS["a"])}
    with pytest.raises(StoreError, match="has changed"):
        same.begin("a", torch.zeros(3))
    untouched = Resume(path, plan(), {"a": torch.ones(3), "b": torch.ones(2)})
    assert untouched.resumed, "no mask of b has left"
    fresh = Resume(path, plan(), {"a": torch.zeros(3), "b": torch.zeros(2)})
    assert not fresh.resumed and fresh.begun == {}
    assert fresh.plan.sharing != first.plan.sharing and not set(fresh.plan.seeds) & set(first.plan.seeds)
    torn = Resume(path, plan(), PARAMS)
    with path.open("ab") as file:
        file.write(b'["a", "')
    assert not Resume(path, plan(), PARAMS).resumed
    assert not Resume(path, plan(msgspec.structs.replace(CARD, version="2")), PARAMS).resumed
    torn.done()
    assert not path.exists()


@pytest.mark.parametrize("changed", [{"frac": 17}, {"bits": 40}, {"shape": (1, 3)}, {"name": "c"}])
def test_masks_never_cover_two_roundings(tmp_path: Path, changed: dict[str, object]) -> None:
    """The same weights in another format are other words: under the old masks their difference would be seen."""
    path = tmp_path / "state" / "m"
    first = Resume(path, plan(), PARAMS)
    first.begin("a", PARAMS["a"])
    other = Resume(path, plan(specs=[msgspec.structs.replace(SPECS[0], **changed), SPECS[1]]), PARAMS)
    assert not other.resumed and not set(other.plan.seeds) & set(first.plan.seeds)
    assert other.plan.sharing != first.plan.sharing
    assert Resume(path, other.plan, PARAMS).plan == other.plan, "the file is the new one's now"


def test_without_a_file_nothing_is_resumed(tmp_path: Path) -> None:
    wanted = plan()
    resume = Resume(None, wanted, PARAMS)
    resume.begin("a", PARAMS["a"])
    resume.done()
    assert not resume.resumed and resume.plan is wanted and not list(tmp_path.iterdir())
