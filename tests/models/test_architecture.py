"""What architectures answer for themselves: one of each, and that nothing is left unanswered."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest
import torch

from puma.errors import UnsupportedModel
from puma.models import architecture, heads, inputs, with_layers
from puma.models.architectures import ARCHITECTURES
from puma.models.architectures.decoder.config import Delta
from puma.models.architectures.seq2seq.config import Sound
from puma.models.config import T5, Bert, ClipVision, Config, Gpt2, Llama, ModernBert, PatchEncoder, Seq2Seq, Vit
from puma.models.ranges import hides

SIZES: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 32, "layers": 2, "heads": 2}
WORDS: dict[str, Any] = SIZES | {"vocab_size": 20, "context": 16}
IMAGES: dict[str, Any] = SIZES | {"image_size": 6, "patch_size": 2, "channels": 1, "labels": ("no", "yes")}
CONFIGS: dict[str, Config] = {
    "llama": Llama(**WORDS),
    "classifier": Llama(**WORDS, labels=("no", "yes")),
    "gpt2": Gpt2(vocab_size=20, width=8, layers=2, heads=2, context=16),
    "bert": Bert(**WORDS, predicts=True),
    "distilbert": Bert(**WORDS, type_vocab_size=0, labels=("no", "yes"), each_token=True),
    "modernbert": ModernBert(**WORDS, labels=("no", "yes"), predicts=True),
    "t5": T5(**WORDS, head_dim=4, encoder_layers=2),
    "seq2seq": Seq2Seq(**WORDS, encoder_layers=2, starts=(2, 3)),
    "whisper": Seq2Seq(
        **WORDS, encoder_layers=2, answers=12, pre_norms=True, embedded_norm=False, sound=Sound(bands=5)
    ),
    "vit": Vit(**IMAGES),
    "patches": PatchEncoder(**IMAGES),
    "clip": ClipVision(**{name: IMAGES[name] for name in IMAGES if name != "labels"}, projected=5),
}


def test_every_config_that_travels_has_an_architecture() -> None:
    assert {type(config) for config in CONFIGS.values()} == set(get_args(Config)) == set(ARCHITECTURES)
    with pytest.raises(UnsupportedModel, match="no model config"):
        architecture("llama")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_answers_what_its_heads_promise(name: str) -> None:
    config = CONFIGS[name]
    model, asked = architecture(config).model(config), heads(config)
    arguments = list(inspect.signature(model.states).parameters)
    assert arguments[1:] == ["lengths", "types", "padding"]
    assert asked.generates != asked.encodes
    if asked.generates:
        assert {"cache", "ranked"} <= set(inspect.signature(model.__call__).parameters)
    for promised, method in ((asked.scores, "every"), (asked.predicts, "predict"), (asked.labels, "classify")):
        assert not promised or callable(getattr(model, method))


def test_who_generates_classifies_and_predicts() -> None:
    found = {name: heads(config) for name, config in CONFIGS.items()}
    assert {name for name, h in found.items() if h.generates} == {"llama", "gpt2", "t5", "seq2seq", "whisper"}
    assert {name for name, h in found.items() if h.scores} == {"llama", "gpt2"}
    assert {name for name, h in found.items() if h.predicts} == {"bert", "modernbert"}
    assert {name for name, h in found.items() if h.labels} == {
        "classifier",
        "distilbert",
        "modernbert",
        "vit",
        "patches",
    }
    assert {name for name, h in found.items() if h.each_token} == {"distilbert"}
    assert {name for name, config in CONFIGS.items() if architecture(config).foreseen} == {
        "llama",
        "classifier",
        "gpt2",
    }


def test_what_a_memory_holds_is_not_foreseen_nor_hidden() -> None:
    delta = Delta(key_heads=2, value_heads=2, key_size=4, value_size=4)
    config = Llama(**WORDS, full_every=2, delta=delta)
    assert architecture(CONFIGS["llama"]).foresees(CONFIGS["llama"]) and not architecture(config).foresees(config)
    params = {name: torch.zeros(shape) for name, shape in architecture(config).parameters(config).items()}
    assert not hides(config, params) and inputs(config).pads == ""


def test_what_is_read() -> None:
    found = {name: inputs(config) for name, config in CONFIGS.items()}
    assert {name for name, i in found.items() if i.kind == "pixels"} == {"vit", "patches", "clip"}
    assert {name for name, i in found.items() if i.pads == "behind"} == {"bert", "distilbert", "modernbert"}
    assert {name for name, i in found.items() if i.pads == "front"} == {"llama"}
    assert [found[name].types for name in ("llama", "bert", "distilbert")] == [1, 2, 1]
    assert found["llama"].sent([3, 4]) == 7 and found["llama"].room(10) == 7
    assert found["t5"].room(10) == 16, "an answer has a context of its own"
    assert (found["seq2seq"].room(10), found["whisper"].room(10)) == (15, 12), "and begins with tokens of it"
    assert (found["whisper"].sent([16, 16]), found["whisper"].length(99), found["whisper"].width) == (64, 16, 5)
    # A row before the patches is computed, and not sent.
    assert (found["vit"].context, found["vit"].sent([10, 10]), found["vit"].width) == (10, 18, 4)
    assert (found["patches"].context, found["patches"].sent([9, 9])) == (9, 18)


@pytest.mark.parametrize("name", CONFIGS)
def test_another_number_of_layers(name: str) -> None:
    config = with_layers(CONFIGS[name], 5)
    assert type(config) is type(CONFIGS[name]) and architecture(config).layers(config) == 5
    per_layer = len(architecture(config).parameters(config)) - len(architecture(config).parameters(CONFIGS[name]))
    assert per_layer > 0 and per_layer % 3 == 0


def test_the_largest_tensor() -> None:
    config = CONFIGS["llama"]
    assert architecture(config).largest(config, 1, 1) == 32, "the inner layer"
    assert architecture(config).largest(config, 1, 3) == 3 * 32
    assert architecture(config).largest(config, 100, 100) == 2 * 100**2, "the scores"
    wide = Llama(**(WORDS | {"vocab_size": 1000}))
    assert architecture(wide).largest(wide, 1, 1) == 1000, "the logits"
