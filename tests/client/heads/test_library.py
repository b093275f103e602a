"""Scores are those of sentence-transformers' CrossEncoder itself, of pairs with one label or more, cut or whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from puma.errors import CheckpointError, InputError, UnsupportedModel
from puma.models.checkpoint import load
from tests.models import tiny
from tests.models.library.compare import quiet

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

QUERY = "the cat sat"
TEXTS = ["a dog ran on the mat", "they went home", "the big red dog " * 20, "the red hat"]
IDENTITY = "torch.nn.modules.linear.Identity"
ONE = {"id2label": {"0": "LABEL_0"}, "num_hidden_layers": 1}
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "sigmoid": ("BertForSequenceClassification", tiny.BERT | ONE, "[CLS] $A [SEP]"),
    "identity": (
        "BertForSequenceClassification",
        tiny.BERT | ONE | {"sentence_transformers": {"activation_fn": IDENTITY}},
        "[CLS] $A [SEP]",
    ),
    "old": (
        "BertForSequenceClassification",
        tiny.BERT | ONE | {"sbert_ce_default_activation_function": IDENTITY},
        "[CLS] $A [SEP]",
    ),
    "decoder": ("LlamaForSequenceClassification", tiny.LLAMA | ONE | {"pad_token_id": 0}, "<s> $A"),
}
Serve = Callable[[Path], Any]


def write(folder: Path, name: str, **more: Any) -> Path:
    """A folder that the library opens, too."""
    architecture, settings, template = MODELS[name]
    tiny.write(folder, architecture, settings | more, template)
    read = ["input_ids", "token_type_ids", "attention_mask"][:: 1 if "Bert" in architecture else 2]
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<unk>", "model_input_names": read}
    (folder / "tokenizer_config.json").write_text(json.dumps(words | {"model_max_length": 24}))
    return folder


@contextmanager
def library(folder: Path) -> Iterator[Any]:
    with quiet():
        from sentence_transformers import CrossEncoder

        yield CrossEncoder(str(folder), device="cpu")


@pytest.mark.parametrize("name", MODELS)
def test_rank(name: str, tmp_path: Path, plainly: Serve) -> None:
    folder = write(tmp_path, name)
    with library(folder) as theirs:
        expected = theirs.rank(QUERY, TEXTS)
    found = plainly(folder).rank(QUERY, TEXTS)
    assert [each.index for each in found] == [each["corpus_id"] for each in expected]
    assert [each.score for each in found] == pytest.approx([each["score"] for each in expected], abs=1e-5)
    assert [each.index for each in found if each.cut] == [2]


def test_what_the_library_saved_itself(tmp_path: Path, plainly: Serve) -> None:
    import torch

    folder = write(tmp_path / "first", "sigmoid")
    with library(folder) as theirs:
        theirs.activation_fn = torch.nn.Identity()
        theirs.save_pretrained(str(tmp_path / "saved"))
    (tmp_path / "saved" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with library(tmp_path / "saved") as theirs:
        expected = theirs.predict([(QUERY, text) for text in TEXTS]).tolist()
    found = {each.index: each.score for each in plainly(tmp_path / "saved").rank(QUERY, TEXTS)}
    assert found == pytest.approx(dict(enumerate(expected)), abs=1e-5)


def test_several_labels(tmp_path: Path, plainly: Serve) -> None:
    folder = write(tmp_path, "sigmoid", id2label={"0": "no", "1": "perhaps", "2": "yes"})
    with library(folder) as theirs:
        expected = theirs.predict([(QUERY, text) for text in TEXTS], apply_softmax=True)[:, 2].tolist()
        logits = theirs.predict([(QUERY, text) for text in TEXTS])[:, 2].tolist()
    served = plainly(folder)
    for raw, values in ((False, expected), (True, logits)):
        found = {each.index: each.score for each in served.rank(QUERY, TEXTS, label="yes", raw=raw)}
        assert found == pytest.approx(dict(enumerate(values)), abs=1e-5)


TEMPLATES = {
    "texts": "<s> {% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}it was "
    "{% if add_generation_prompt %}then{% endif %}",
    "parts": "<s> {% for m in messages %}{{ m.content[0].text }} {% endfor %}it was",
}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_that_generates_judges_by_two_words(template: str, tied: bool, tmp_path: Path, plainly: Serve) -> None:
    """As Qwen3-Reranker does: saved by the library, with a prompt, and read as a head for one class."""
    first, saved = tmp_path / "first", tmp_path / "saved"
    tiny.write(first, "LlamaForCausalLM", tiny.LLAMA | {"num_hidden_layers": 1, "tie_word_embeddings": tied}, "<s> $A")
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<unk>", "chat_template": TEMPLATES[template]}
    (first / "tokenizer_config.json").write_text(json.dumps(words))
    with quiet():
        from sentence_transformers import CrossEncoder
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.cross_encoder.modules import LogitScore

        body = Transformer(str(first), transformer_task="text-generation")
        prompts = {"prompts": {"web": "one day"}, "default_prompt_name": "web"} if template == "texts" else {}
        CrossEncoder(modules=[body, LogitScore(9, 12)], device="cpu", **prompts).save_pretrained(str(saved))
        (saved / "tokenizer.json").write_bytes((first / "tokenizer.json").read_bytes())
        theirs = CrossEncoder(str(saved), device="cpu")
        expected = theirs.predict([(QUERY, text) for text in (TEXTS[0], TEXTS[1])]).tolist()
    served = plainly(saved)
    assert served.model.labels == ("score",) and "lm_head.weight" not in served.model.params
    found = {each.index: each.score for each in served.rank(QUERY, TEXTS[:2])}
    assert found == pytest.approx(dict(enumerate(expected)), abs=1e-5)
    with pytest.raises(InputError, match="context"):
        served.rank(QUERY, TEXTS)


def test_a_prompt_goes_before_the_query(tmp_path: Path, plainly: Serve) -> None:
    folder = write(tmp_path, "sigmoid")
    said = {"model_type": "CrossEncoder", "prompts": {"web": "one day "}, "default_prompt_name": "web"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    (folder / "modules.json").write_text(json.dumps([module]))
    (folder / "sentence_bert_config.json").write_text('{"transformer_task": "sequence-classification"}')
    with library(folder) as theirs:
        assert theirs.default_prompt_name == "web"
        expected = theirs.predict([(QUERY, text) for text in TEXTS]).tolist()
    found = {each.index: each.score for each in plainly(folder).rank(QUERY, TEXTS)}
    assert found == pytest.approx(dict(enumerate(expected)), abs=1e-5)


@pytest.mark.parametrize(
    ("modules", "score", "says"),
    [
        (["Transformer", "Dense"], {}, "Dense"),
        (["Transformer", "LogitScore"], {}, "no words"),
        (["Transformer", "LogitScore"], {"true_token_id": 900}, "has not"),
    ],
)
def test_other_folders_of_the_library_are_refused(
    modules: list[str], score: dict[str, int], says: str, tmp_path: Path
) -> None:
    folder = tiny.llama(tmp_path, num_hidden_layers=1)
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    (folder / "score").mkdir()
    (folder / "score" / "config.json").write_text(json.dumps(score))
    named = [{"type": f"sentence_transformers.{kind}", "path": "score" if i else ""} for i, kind in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(named))
    with pytest.raises((UnsupportedModel, CheckpointError), match=says):
        load(folder).fold()
