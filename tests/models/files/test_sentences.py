"""Folders of sentence-transformers: what comes behind the states and before the texts, and what is refused rather than
ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from puma.errors import CheckpointError, InputError, UnsupportedModel, UsageError
from puma.models import heads
from puma.models.architectures import ARCHITECTURES
from puma.models.checkpoint import load
from puma.models.pooling import Dense, Pooling
from puma.models.reading.wording import FILE, Wording, read
from puma.reference.plain_model import PlainModel
from tests.models import sentences, tiny

CLS, MEAN = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode_mean_tokens": True}
PROMPTS = {"prompts": {"query": "the cat ", "passage": ""}, "default_prompt_name": "query"}


@pytest.mark.parametrize(
    ("pooling", "found"),
    [
        (CLS, ("cls",)),
        (MEAN, ("mean",)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len_tokens",)),
        (MEAN | {"pooling_mode_lasttoken": True, "pooling_mode_cls_token": True}, ("cls", "mean", "lasttoken")),
        ({"pooling_mode": "max"}, ("max",)),
        ({"pooling_mode": ["weightedmean", "cls"]}, ("weightedmean", "cls")),
        ({"pooling_mode": "mean", "include_prompt": True}, ("mean",)),
        ({}, ("mean",)),
        (None, ()),
    ],
)
def test_what_the_folder_says(pooling: Any, found: tuple[str, ...], tmp_path: Path) -> None:
    made = load(sentences.write(tmp_path, pooling, normalise=True))
    assert heads(made.config).pooling == Pooling(modes=found)  # type: ignore[arg-type]


def test_a_folder_of_its_own_for_the_model(tmp_path: Path) -> None:
    """Weights, config and tokenizer are in it, matrices behind the pooling beside it, and all count as its weights."""
    dense = [(8, "Tanh", True), (6, "Identity", False)]
    made = load(sentences.write(tmp_path / "it", CLS, dense, inside="0_Transformer"))
    assert made.name == "it" and made.folder == tmp_path / "it" / "0_Transformer"
    pooling = Pooling(modes=("cls",), dense=(Dense(outputs=8, activation="tanh"), Dense(outputs=6, bias=False)))
    assert heads(made.config).pooling == pooling and pooling.width(24) == 6
    behind = {name: tuple(tensor.shape) for name, tensor in made.fold().items() if name.startswith("embed.")}
    assert behind == {"embed.dense.0.weight": (8, 24), "embed.dense.0.bias": (8,), "embed.dense.1.weight": (6, 8)}
    assert {path.parent.name for path in made.weights} == {"0_Transformer", "2_Dense", "3_Dense"}
    assert made.open_tokenizer().encode("the cat").ids


def test_what_travels_to_clients(tmp_path: Path) -> None:
    own = {"max_seq_length": 9, "do_lower_case": True}
    made = load(
        sentences.write(tmp_path, MEAN | {"include_prompt": False}, own=own, general=PROMPTS | {"truncate_dim": 5})
    )
    prompts = {"query": "the cat ", "passage": ""}
    assert read(made.files[FILE]()) == Wording(
        prompts=prompts, default="query", longest=9, dimensions=5, normalised=False, whole=False
    )
    assert made.open_tokenizer().encode("The CAT").ids == made.open_tokenizer().encode("the cat").ids
    with pytest.raises(CheckpointError):
        read(b'{"longest": "none"}')


def test_a_head_is_left_aside_where_states_are_pooled(tmp_path: Path) -> None:
    made = load(sentences.write(tmp_path / "a", {"pooling_mode": "lasttoken"}, body=tiny.llama))
    assert made.architecture == "LlamaModel" and not heads(made.config).generates
    cross = {"model_type": "CrossEncoder"}
    kept = load(sentences.write(tmp_path / "b", None, general=cross, body=tiny.classifier))
    assert heads(kept.config).labels and FILE not in kept.files


@pytest.mark.parametrize(
    ("pooling", "dense", "change", "what"),
    [
        ({"pooling_mode": "median"}, (), "", "median"),
        ({"pooling_mode": []}, (), "", "nothing"),
        (MEAN, [(8, "Softmax", True)], "", "Softmax"),
        (MEAN, (), "Transformer Pooling LSTM", "LSTM"),
        (MEAN, (), "Transformer Pooling Pooling", "two Poolings"),
        (MEAN, [(8, "Tanh", True)], "Transformer Pooling Normalize Dense", "behind a Normalize"),
        (MEAN, [(8, "Tanh", True)], "Transformer Dense Pooling", "before a Pooling"),
    ],
)
def test_what_would_be_another_vector_is_refused(
    pooling: Any, dense: Any, change: str, what: str, tmp_path: Path
) -> None:
    folder = sentences.write(tmp_path, pooling, dense)
    if change:
        places = {"Pooling": "1_Pooling", "Dense": "2_Dense"}
        sentences.named_modules(folder, [(kind, places.get(kind, "")) for kind in change.split()])
    with pytest.raises(UnsupportedModel, match=what):
        load(folder)


@pytest.mark.parametrize("setting", [{"use_residual": True}, {"module_input_name": "token_embeddings"}])
def test_a_dense_that_reads_or_adds_something_else(setting: dict[str, Any], tmp_path: Path) -> None:
    folder = sentences.write(tmp_path, MEAN, [(8, "Tanh", True)])
    path = folder / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | setting))
    with pytest.raises(UnsupportedModel, match=next(iter(setting))):
        load(folder)


@pytest.mark.parametrize("content", ["{", "{}", "[5]", '[{"type": "x"}]', '[{"type": "x.Pooling", "path": "../x"}]'])
def test_modules_that_cannot_be_read(content: str, tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path, num_hidden_layers=1)
    (folder / "modules.json").write_text(content)
    with pytest.raises(CheckpointError):
        load(folder)


def test_code_of_the_models_own(tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path, num_hidden_layers=1)
    (folder / "modules.json").write_text('[{"type": "custom_st.Transformer", "path": ""}]')
    with pytest.raises(UnsupportedModel, match="custom_st"):
        load(folder)


def test_matrices_that_are_missing(tmp_path: Path) -> None:
    folder = sentences.write(tmp_path, MEAN, [(8, "Tanh", True)])
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="2_Dense"):
        load(folder)


def test_texts_that_are_too_long(tmp_path: Path) -> None:
    """They are refused with a hint, or cut as the library cuts them, special tokens and all, and that is told."""
    model = PlainModel(sentences.write(tmp_path, MEAN, own={"max_seq_length": 5}, general=PROMPTS))
    with pytest.raises(InputError, match="reads 5") as error:
        model.sentence_ids("a dog ran on")
    assert "truncate" in error.value.hint
    from puma.client.sentences import Asked

    cut = model.reading("a dog ran on", asked=Asked.of(prompt_name="passage", truncate=True))
    assert cut.tokens.ids == [3, 6, 8, 10, 4] and cut.left_out == 1
    assert model.reading("a", asked=Asked.of(truncate=True)).left_out == 0
    with pytest.raises(UsageError, match="no prompt other"):
        model.reading("a", asked=Asked.of(prompt_name="other"))
    with pytest.raises(UsageError, match="one too many"):
        Asked.of(prompt="a", prompt_name="query")


def test_every_architecture_makes_vectors() -> None:
    """A new one that has nothing for it would fail when somebody asks."""
    from tests.models.test_architecture import CONFIGS

    assert {type(config) for config in CONFIGS.values()} == ARCHITECTURES.keys()
    for config in CONFIGS.values():
        assert callable(ARCHITECTURES[type(config)].model(config).embed)


def test_the_hub_is_asked_for_the_pooling_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its absence would be taken for the mean."""
    folder, asked = sentences.write(tmp_path, CLS), list[list[str]]()

    def snapshot(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert heads(load("someone/sentences").config).pooling.modes == ("cls",)
    assert "1_Pooling/*.json" in asked[1]


@pytest.mark.parametrize(
    ("kind", "modes"), [("CLS", ("cls",)), ("MEAN", ("mean",)), ("LAST", ("lasttoken",)), ("NONE", ())]
)
def test_a_gguf_file_says_how_it_pools(kind: str, modes: tuple[str, ...], tmp_path: Path) -> None:
    import gguf

    from tests.models.files import ggufs

    def extra(writer: gguf.GGUFWriter) -> None:
        writer.add_pooling_type(gguf.PoolingType[kind])

    body = tiny.llama if kind == "LAST" else tiny.bert
    made = load(ggufs.write(tmp_path / "it.gguf", body(tmp_path / "folder", num_hidden_layers=1), extra=extra))
    assert heads(made.config).pooling.modes == modes and heads(made.config).encodes


def test_what_a_clients_own_folder_says(tmp_path: Path) -> None:
    """Prompts and lengths belong to the tokenizer that a client brings."""
    from puma.client.tokens.own_files import own_files

    folder = sentences.write(tmp_path / "it", MEAN, own={"max_seq_length": 9}, inside="0_Transformer")
    own = own_files(folder)
    assert own.whole and read(own.files[FILE]()).longest == 9 and own.tokenizer.encode("the cat").ids
    assert FILE not in own_files(tiny.bert(tmp_path / "bare")).files
