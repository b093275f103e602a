"""Texts become the tokens that transformers makes of them, whatever files a tokenizer is kept in, or it is refused."""

from __future__ import annotations

import inspect
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from puma.errors import CheckpointError
from puma.models.checkpoint import load
from puma.models.files import pieces, settled
from puma.models.files.words import PIECES, SPECIALS, text
from puma.models.text import encode, tokenizer_of
from tests.models import tiny
from tests.models.library import words
from tests.models.library.compare import EQUAL, NOT_THEIRS, REFUSED, quiet

FAULTS = [  # each was wrong in silence once
    ("bert", "not lower"), ("bert", "one type"), ("bert", "no config"), ("gpt2", "space"), ("gpt2-bos", "no space"),
    ("bert", "gpt2"), ("roberta", "decoder"), ("opt", "further"), ("qwen2", "few added"), ("neox", "padded"),
    ("gpt2", "split"), ("bert", "no frame"), ("mbart", "language"), ("mbart50", "language"), ("mpnet", "bert"),
    ("nllb", "llama"), ("m2m100", "named"),
]  # fmt: skip


def judged(folder: Path, model_type: str) -> str:
    """What came of a folder's tokenizer; AssertionError if it makes other tokens than theirs."""
    with quiet() as transformers:
        try:
            theirs = transformers.AutoTokenizer.from_pretrained(folder)
            expected = [theirs(*asked, truncation=False) for asked in texts()]
        except Exception:
            expected = None
    try:
        ours: Any = tokenizer_of(settled.content(folder, model_type), "it", "")
    except CheckpointError as error:
        assert error.hint
        return REFUSED
    if expected is None:
        return NOT_THEIRS
    for asked, theirs in zip(texts(), expected, strict=True):
        found = ours.encode(*asked)
        assert found.ids == theirs["input_ids"], asked
        assert "token_type_ids" not in theirs or found.type_ids == theirs["token_type_ids"], asked
    return EQUAL


def texts() -> list[tuple[str, ...]]:
    return [(text,) for text in words.TEXTS] + [(text, "a hat") for text in words.TEXTS[::3]]


@pytest.mark.parametrize("name", words.KINDS)
def test_a_tokenizer_is_made_out_of_what_there_is(name: str, tmp_path: Path) -> None:
    folder = words.write(tmp_path / "it", name)
    assert judged(folder, words.KINDS[name].model_type) == EQUAL


@pytest.mark.parametrize("name", ["bert", "roberta", "gemma", "t5", "xlm-roberta"])
def test_its_class_need_not_be_named(name: str, tmp_path: Path) -> None:
    folder = words.write(tmp_path / "it", name, tokenizer_class=None)
    assert judged(folder, words.KINDS[name].model_type) == EQUAL


@pytest.mark.parametrize(("name", "change"), FAULTS)
def test_files_that_contradict_each_other(name: str, change: str, tmp_path: Path) -> None:
    found = judged(words.contradicted(tmp_path, name, change), words.KINDS[name].model_type)
    refused = change in ("gpt2", "decoder", "split", "no frame") or name == "m2m100"
    assert found == (REFUSED if refused else EQUAL)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("electra", ("plain words", "few added", "no config")), ("llama-eos", ("few added", "no config", "one type")),
        ("mpnet", ("few added",)), ("mbart", ("few added",)), ("nllb", ("few added",)),
    ],
)  # fmt: skip
def test_special_tokens_of_a_class_that_its_files_leave_out(
    name: str, changes: tuple[str, ...], tmp_path: Path
) -> None:
    """A class is built anew from the vocabulary, and has its own, with its own flags."""
    assert judged(words.contradicted(tmp_path, name, *changes), words.KINDS[name].model_type) == EQUAL


def test_a_list_of_added_tokens_is_the_whole_list_for_a_class(tmp_path: Path) -> None:
    """Those of tokenizer.json that it lacks are words like others; a token with a role of its own is added."""
    folder = words.contradicted(tmp_path, "bert", "as saved")
    path, said = folder / "tokenizer_config.json", json.loads((folder / "tokenizer_config.json").read_text())
    path.write_text(json.dumps(said | {"added_tokens_decoder": {}, "mask_token": None, "image_token": "sat"}))
    assert judged(folder, "bert") == EQUAL
    found = tokenizer_of(settled.content(folder, "bert"), "it", "")
    assert "[MASK]" not in found.encode("[MASK] hat").tokens and "sat" in found.encode("catsat").tokens


@pytest.mark.slow
@pytest.mark.parametrize("name", words.KINDS)
def test_every_change_of_every_kind(name: str, tmp_path: Path) -> None:
    kind = words.KINDS[name].model_type
    found = [judged(words.contradicted(tmp_path / change, name, change), kind) for change in words.CHANGES]
    assert found.count(EQUAL) > len(found) / 2


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 400, 50))
def test_changes_together(start: int, tmp_path: Path) -> None:
    for seed in range(start, start + 50):
        choice = random.Random(seed)
        name, changes = choice.choice(list(words.KINDS)), choice.sample(list(words.CHANGES), k=choice.choice([2, 3]))
        judged(words.contradicted(tmp_path / str(seed), name, *changes), words.KINDS[name].model_type)


@pytest.mark.parametrize("called", SPECIALS)
def test_special_tokens_that_classes_have(called: str) -> None:
    """Those of a class's constructor, for folders and chat templates that name the class and not the tokens."""
    with quiet() as transformers:
        given = inspect.signature(getattr(transformers, called).__init__).parameters
    theirs = {name: str(given[name].default) for name in given if name.endswith("_token") and given[name].default}
    assert theirs == {name: text(token) for name, token in SPECIALS[called].items()}


def test_a_checkpoint_without_tokenizer_json(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path, vocab_size=420)
    (folder / "tokenizer.json").unlink()
    words.KINDS["llama"].write(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(words.KINDS["llama"].settings))
    checkpoint = load(folder)
    tokenizer = checkpoint.open_tokenizer()
    ids = encode(tokenizer, checkpoint.config, "the cat sat").ids
    assert tokenizer.decode(ids) == "the cat sat" and len(ids) < 8


def test_a_tokenizer_that_says_the_same_stays_as_it_is(tmp_path: Path) -> None:
    folder = words.contradicted(tmp_path, "gpt2", "as saved")
    assert settled.content(folder, "gpt2") == (folder / "tokenizer.json").read_bytes()


def test_pieces_are_read_as_their_library_reads_them(tmp_path: Path) -> None:
    sentencepiece: Any = pytest.importorskip("sentencepiece")
    words.KINDS["t5"].write(tmp_path)
    content = (tmp_path / "spiece.model").read_bytes()
    theirs, ours = sentencepiece.SentencePieceProcessor(model_proto=content), pieces.parse(content, "it")
    assert [piece.text for piece in ours.pieces] == [theirs.id_to_piece(i) for i in range(len(theirs))]
    assert [piece.score for piece in ours.pieces] == [theirs.get_score(i) for i in range(len(theirs))]
    assert [piece.kind == pieces.CONTROL for piece in ours.pieces] == [theirs.is_control(i) for i in range(len(theirs))]
    assert ours.unknown == theirs.unk_id() and ours.kind == pieces.UNIGRAM and len(ours.charsmap) > 1000
    for damaged in (content[:-7], b"", b"\x0a\x7f", b"\xff" * 40):
        with pytest.raises(CheckpointError, match="it is no SentencePiece model"):
            pieces.parse(damaged, "it")


@pytest.mark.parametrize(
    "files", [{}, {"vocab.json": "{}"}, {"vocab.json": "{", "merges.txt": ""}, {"spiece.model": "x"}]
)
def test_files_that_cannot_be_used(files: dict[str, str], tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    called = "T5Tokenizer" if any(name in PIECES for name in files) else "GPT2Tokenizer"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": called}))
    with pytest.raises(CheckpointError) as refused:
        settled.content(tmp_path, "gpt2")
    assert refused.value.hint
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "TapasTokenizer"}))
    with pytest.raises(CheckpointError, match=r"TapasTokenizer is not known"):
        settled.content(tmp_path, "bert")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        settled.content(tmp_path, "mistral")  # what the library makes of its pieces alone lacks a space


def test_a_tokenizer_is_what_it_was(tmp_path: Path) -> None:
    """Made anew each time, and alike: clients compare it with what they saw."""
    folder = words.write(tmp_path / "it", "albert")
    first = settled.content(folder, "albert")
    assert settled.content(folder, "albert") == first and Tokenizer.from_str(first.decode())
