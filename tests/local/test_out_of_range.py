"""Whatever is asked of whatever model: an answer for which a number left its range is an error, the next one is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from puma.errors import OutOfRange, OutOfRangeWarning
from puma.local.cluster import LocalCluster
from puma.reference import plain_model
from tests.local import loud
from tests.models import tiny, zoo
from tests.threads import Threads

T5 = zoo.T5 | {"model_type": "t5", "num_layers": 1, "relative_attention_num_buckets": 8, "pad_token_id": 0}
T5 |= {"eos_token_id": 2, "vocab_size": tiny.VOCABULARY, "relative_attention_max_distance": 9}
VIT = zoo.VIT | {"model_type": "vit", "image_size": 8, "patch_size": 4, "num_hidden_layers": 1}
WORDS = "bert.embeddings.word_embeddings.weight"
Ask = Callable[[LocalCluster, bool], Any]


def llama(folder: Path) -> Path:
    return loud.token(tiny.llama(folder, num_hidden_layers=1), "model.embed_tokens.weight", "dog")


def t5(folder: Path) -> Path:
    return loud.token(tiny.write(folder, "T5ForConditionalGeneration", T5, "$A </s>"), "shared.weight", "dog")


def masked(folder: Path) -> Path:
    folder = tiny.write(folder, "BertForMaskedLM", tiny.BERT | {"num_hidden_layers": 1}, "[CLS] $A [SEP]")
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"ran"', '"[MASK]"'))
    return loud.token(folder, WORDS, "dog")


def tagger(folder: Path) -> Path:
    settings = tiny.BERT | {"num_hidden_layers": 1, "id2label": {"0": "a", "1": "b"}}
    return loud.token(tiny.write(folder, "BertForTokenClassification", settings, "[CLS] $A [SEP]"), WORDS, "dog")


def vit(folder: Path) -> Path:
    folder = tiny.write(folder, "ViTForImageClassification", VIT, "$A")
    for name, size in (("quiet", 0.1), ("loud", 60.0)):
        numpy.save(folder / f"{name}.npy", numpy.full((3, 8, 8), size, numpy.float32))
    return folder


def text(wrong: bool) -> str:
    return "the dog" if wrong else "the cat"


MODELS: dict[str, tuple[Callable[[Path], Path], Ask]] = {
    "generate": (llama, lambda cluster, wrong: cluster.generate(text(wrong), 2)),
    "stream": (llama, lambda cluster, wrong: list(cluster.stream(text(wrong), 2))),
    "t5": (t5, lambda cluster, wrong: cluster.generate(text(wrong), 2)),
    "fill": (masked, lambda cluster, wrong: cluster.fill(f"{text(wrong)} [MASK]", 3)),
    "tokens": (tagger, lambda cluster, wrong: cluster.encode(text(wrong))),
    "pairs": (tagger, lambda cluster, wrong: cluster.encode(("the cat", text(wrong)))),
    "image": (vit, lambda cluster, wrong: cluster.encode(str(cluster.model.checkpoint.folder / f"{NAMES[wrong]}.npy"))),
}
NAMES = ("quiet", "loud")


@pytest.mark.parametrize("name", MODELS)
def test_an_error_and_then_an_answer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_model, "planned", loud.narrow)
    write, ask = MODELS[name]
    with Threads() as trio:
        cluster = LocalCluster(write(tmp_path), trio=trio)  # type: ignore[arg-type]
        assert ask(cluster, False)
        with pytest.raises(OutOfRange, match="left its range"):
            ask(cluster, True)
        assert ask(cluster, False)
        cluster.out_of_range = "warn"
        for _ in range(2):  # each answer has a warning of its own
            with pytest.warns(OutOfRangeWarning, match="may be wrong"):
                assert ask(cluster, True)
