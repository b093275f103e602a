"""A calibration looks at all places of all architectures, reads each parameter a few times at most, and keeps none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from puma.models import architecture, text
from puma.models.checkpoint import load
from puma.models.formats import observe as attach
from puma.models.formats import places
from puma.nn import delta
from puma.reference.calibration import grouped, observe, picture, samples
from puma.reference.calibration_texts import TEXTS
from puma.reference.observed import Reader, Watch
from puma.reference.plain_model import PlainModel
from tests.models import zoo


def quiet(what: str, done: int, of: int) -> None:
    """Nobody looks."""


class Counted(dict[str, torch.Tensor]):
    """Parameters that count how often each is read."""

    def __init__(self, params: dict[str, torch.Tensor]) -> None:
        super().__init__(params)
        self.reads = dict.fromkeys(params, 0)

    def __getitem__(self, name: str) -> torch.Tensor:
        self.reads[name] += 1
        return super().__getitem__(name)


FEW = ("gemma2", "gemma3", "qwen3", "neox", "t5-gated", "Bert-MaskedLM", "Albert-SequenceClassification", "vit")
FEW += (
    "DebertaV2-SequenceClassification",
    "deberta-convolution",
    "ModernBert-MaskedLM",
    "nomic",
    "mpnet",
    "clip-vision-bare",
)


@pytest.mark.parametrize(
    "name", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(set(zoo.ALL) - set(FEW)))]
)
def test_all_places_of_every_family_report(name: str, tmp_path: Path) -> None:
    model = PlainModel(zoo.write(tmp_path, name))
    given = samples(model, tmp_path)
    watch = observe(model.config, model.params, given, quiet, ("spline", "puma"))
    known = places(architecture(model.config).model(model.config))
    short = model.config.context < delta.CHUNK  # a memory is written once a chunk is full
    wanted = {where for where in known if not (short and where.endswith(".state"))}
    assert {where for kind, where in watch.seen if kind != "stream"} == wanted
    assert all(seen.largest > 0 for seen in watch.seen.values())


def test_it_sees_what_a_plain_run_with_all_weights_at_hand_sees(checkpoints: dict[str, Path]) -> None:
    checkpoint = load(checkpoints["llama"])
    config, params = checkpoint.config, dict(checkpoint.fold())
    ids = [[1, 5, 9, 20, 7], [1, 6]]
    found = observe(config, params, [text.Tokens(row, [0] * len(row)) for row in ids], quiet)
    expected = Watch()
    model = architecture(config).model(config, params)
    attach(model, expected)
    for row in ids:
        model.every(torch.tensor(row))
    assert found.seen.keys() == expected.seen.keys()
    for key, seen in expected.seen.items():
        assert found.seen[key].largest == pytest.approx(seen.largest, rel=1e-4)
        assert found.seen[key].least == pytest.approx(seen.least, rel=1e-4)


def test_each_parameter_is_read_once_a_pass(checkpoints: dict[str, Path]) -> None:
    checkpoint = load(checkpoints["gpt2"])
    params = Counted(dict(checkpoint.fold()))
    config = checkpoint.config
    given = [text.Tokens([1, 2, 3], [0] * 3), text.Tokens([4, 5], [0] * 2)]
    observe(config, params, given, quiet)
    twice = {"model.embed_tokens.weight"}  # the head is tied
    assert {name: count for name, count in params.reads.items() if count != 1} == dict.fromkeys(twice, 2)


def test_logits_of_large_vocabularies_are_seen_and_not_kept(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load(checkpoints["llama"])
    config, params = checkpoint.config, dict(checkpoint.fold())
    given = [text.Tokens([1, 5, 9, 20, 7], [0] * 5)]
    whole = observe(config, params, given, quiet)
    monkeypatch.setattr("puma.reference.observed.AT_ONCE", 60)  # two rows of 28
    turns = observe(config, params, given, quiet)
    assert turns.seen["logits", "lm_head"].largest == pytest.approx(whole.seen["logits", "lm_head"].largest, rel=1e-5)


def test_a_parameter_that_is_not_read_yet_has_a_shape(checkpoints: dict[str, Path]) -> None:
    checkpoint = load(checkpoints["llama"])
    shapes = architecture(checkpoint.config).parameters(checkpoint.config)
    reader = Reader({}, shapes, 28, lambda name: None, lambda spread: None)
    weight = reader["model.norm.weight"]
    assert tuple(weight.shape) == (24,) and len(reader) == len(shapes)
    with pytest.raises(KeyError):
        weight + 1


def test_groups_are_of_one_length_and_leave_room(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(checkpoints["llama"]).config
    given = [text.Tokens([1] * length, [0] * length) for length in (3, 30, 31, 9, 4, 8, 16)]
    lengths = [[len(each.ids) for each in group] for group in grouped(config, given)]
    assert lengths == [[31, 30, 16], [9, 8], [4, 3]]
    monkeypatch.setattr("puma.reference.calibration.SCORES", 4 * 2 * 31**2)  # two at a time
    assert [len(group) for group in grouped(config, given)] == [2, 3, 2]


def test_texts_are_of_many_kinds_and_pictures_of_the_right_shape() -> None:
    assert len(set(TEXTS)) == len(TEXTS) > 40
    assert any(not each.isascii() for each in TEXTS) and any("def " in each for each in TEXTS)
    shapes = {picture(i, size, channels).shape for i in range(12) for size, channels in ((28, 1), (12, 3))}
    assert shapes == {(28, 28, 1), (12, 12, 3)}
