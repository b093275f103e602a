"""Checkpoints made up after published figures hold by their plan, and tables say what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from benchmarks.accuracy import evaluations, flags, published, real_width, tables
from puma.cli.app import app
from puma.models import Cache, architecture, with_layers
from puma.reference.fixed_session import FixedSession
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel

BOUND = 2.0**-8
PEAKS = (60.0, 80.0, 200_000.0, 200_000.0, 180_000.0, 900.0)


def figures(width: int = 256) -> dict[str, Any]:
    """Of a model that nobody published: a row becomes massive in its third layer, far beyond the usual formats."""
    parts = {
        "attention_added": (5.0, 0.3),
        "input_of_activation": (40.0, 1.0),
        "mlp_added": (20.0, 0.4),
        "residual_after_layer": (0.0, 1.5),
    }
    largest = {part: [high] * len(PEAKS) for part, (high, _) in parts.items()}
    rms = {part: [low + 0.1 * i for i in range(len(PEAKS))] for part, (_, low) in parts.items()}
    return {
        "layers": len(PEAKS), "hidden_size": width, "layer_rms": rms,
        "layer_max": largest | {"residual_after_layer": list(PEAKS)},
    }  # fmt: skip


def test_a_massive_row_holds_by_the_plan_and_by_no_other_format() -> None:
    stretch = published.stretches(figures())["rise"]
    found = real_width.measured("Qwen3", figures(), stretch)
    assert found["stream"] >= 20 and max(found["errors"]) < BOUND
    config, params = published.made("Qwen3", figures(), stretch)
    ids = list(published.TEXT)
    (usual,) = FixedSession(config, params).encode([ids], "hidden")
    (plain,) = Plain(config, params).encode([ids], "hidden")
    assert float((usual - plain).abs().max()) > 0.5


@pytest.mark.parametrize("stretch", ["rise", "end"])
def test_layers_reach_what_was_published(stretch: str) -> None:
    wanted = published.stretches(figures())[stretch]
    config, params = published.made("gemma-2", figures(), wanted)
    found = real_width.reached(config, params)
    for (largest, rms), layer in zip(found, wanted, strict=True):
        assert largest == pytest.approx(layer.residual[0], rel=0.1, abs=5)
        assert rms == pytest.approx(layer.residual[1], rel=0.3)


def test_a_text_drives_the_massive_channel_sixteen_times_as_far() -> None:
    config, params = published.made("Qwen3", figures(), published.stretches(figures())["rise"])
    first = with_layers(config, 1)
    model = architecture(first).model(first, {name: params[name] for name in architecture(first).parameters(first)})
    usual, beyond = (
        float(model.model(torch.tensor(text), Cache(1), ending=False).abs().max())
        for text in (published.TEXT, published.BEYOND_TEXT)
    )
    assert beyond > 10 * usual


def test_tables() -> None:
    row = {"model": "x", "stretch": "rise", "width": 1536, "layers": 4, "errors": [0.001, 0.002], "margin": 3.0}
    row |= {"reached": [[10.0, 0.5], [7000.0, 2.0]], "stream": 16, "norms": [5, 18], "published": []}
    assert "| x | rise | 1,536 | 7,000 | 0.5 to 2 | 16 | 5 to 18 | 0.002 (2^-9.0) | 2^-8 |" in tables.published([row])
    chats = [{"tokens": 64, "same": 64}, {"tokens": 64, "same": 9, "gap": 0.001}]
    found = {"text": {"tokens": 5000, "kl": 1e-6, "agree": 0.9995, "max_logit_error": 0.02}, "chats": chats}
    found |= {"long": [{"tokens": 256, "same": 200}]}
    text = tables.smollm2(found | {"parties": [{"tokens": 16, "same": 16}]})
    assert "1 of 2" in text and "0.001" in text and "99.95 %" in text and "1 of 1" in text


@pytest.mark.parametrize("name", evaluations.EVALUATIONS)
def test_evaluations_are_command_lines_of_ours(name: str) -> None:
    for clear in (True, False):
        words = evaluations.EVALUATIONS[name].words(Path("data"), Path("made"), "puma", clear)
        _, bound, _ = app.parse_args(words)
        assert bound.arguments.get("clear", False) == clear and bound.arguments["output"].json


def test_an_evaluation_whose_numbers_left_their_range_is_a_row() -> None:
    error = {"kind": "OutOfRange", "message": "a number left its range", "hint": ""}
    assert "| PUMA, clear | none: a number left its range |" in tables.TABLES["sst2"](
        [{"profile": "puma", "clear": True, "error": error}]
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stretch", ["rise", "end"])
def test_all_published_models_hold(stretch: str, real: Callable[[str], Path]) -> None:
    for name, each in published.read(real("activations")).items():
        found = real_width.measured(name, each, published.stretches(each)[stretch])
        assert max(found["errors"]) < BOUND, name


def test_a_faint_first_layer_holds() -> None:
    """Embeddings of a hundredth, a token of a thousandth, gates of a sixth: as published of Qwen3-30B-A3B and Ling."""
    each = figures()
    each["layer_max"] |= {"input_of_activation": [4.0] * len(PEAKS), "attention_added": [1.3] * len(PEAKS)}
    each["layer_max"]["residual_after_layer"] = [6.0, 174.0, 1048.0, 1480.0, 1480.0, 1480.0]
    each["layer_rms"] |= {"input_of_activation": [0.17] * len(PEAKS), "attention_added": [0.02] * len(PEAKS)}
    each["layer_rms"] |= {"mlp_added": [0.015, 0.04, 0.26, 0.16, 0.16, 0.16]}
    each["layer_rms"]["residual_after_layer"] = [0.038, 0.067, 0.31, 0.47, 0.5, 0.5]
    found = real_width.measured("Qwen3", each, published.stretches(each)["rise"][:2])
    assert found["norms"][0] <= 4 and max(found["errors"]) < BOUND


def test_what_is_driven_beyond_is_flagged_or_right() -> None:
    for times in (16.0, 1024.0):
        found = flags.driven("Qwen3", figures(64), published.stretches(figures(64))["rise"][:2], times)
        assert not found["false"] and (found["flagged"] or found["error"] < BOUND), found


def test_no_alarm_for_short_texts(checkpoints: dict[str, Path]) -> None:
    """Texts of several lengths in one pass, by a plan."""
    model = PlainModel(checkpoints["llama"])
    model.plan()
    draw = torch.Generator().manual_seed(3)
    rows = [torch.randint(model.config.vocab_size, (n,), generator=draw).tolist() for n in (3, 9, 5, 12) * 10]
    assert flags.flagged(model.config, model.params, rows) == 0


def test_the_plan_is_what_the_model_needs() -> None:
    config, params = published.made("Qwen3", figures(64), published.stretches(figures(64))["end"])
    plan = real_width.planned(config, params, [list(published.TEXT)])
    assert msgspec.json.decode(msgspec.json.encode(plan), type=type(plan)) == plan
    assert all(place.seen < 2.0**place.reach for place in plan.places)
