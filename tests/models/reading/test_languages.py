"""Texts in a language that a request names: framed as transformers frames them with another `src_lang`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from puma.errors import UsageError
from puma.models.files import settled
from puma.models.reading.lacking import known
from puma.models.reading.languages import in_language
from puma.models.text import tokenizer_of
from tests.models import tiny
from tests.models.library import words
from tests.models.library.compare import quiet


@pytest.mark.parametrize(
    ("name", "code"), [("mbart", "de_DE"), ("mbart50", "fr_XX"), ("mbart50", "uk_UA"), ("m2m100", "fr")]
)
def test_frames_are_the_librarys(name: str, code: str, tmp_path: Path) -> None:
    folder = words.write(tmp_path / "it", name)
    ours = tokenizer_of(settled.content(folder, words.KINDS[name].model_type), "it", "")
    with quiet() as transformers:
        theirs: Any = transformers.AutoTokenizer.from_pretrained(folder, src_lang=code)
        for text in words.TEXTS:
            assert in_language(ours, "it", ours.encode(text).ids, code) == theirs(text)["input_ids"], text


@pytest.mark.parametrize(("codes", "text"), [(("eng_Latn", "deu_Latn"), "the cat"), (("__en__", "__de__"), "a hat")])
def test_other_codes(codes: tuple[str, str], text: str) -> None:
    """NLLB's and M2M100's; a code in the text stays where it is."""
    tokenizer = tiny.tokenizer("$A")
    tokenizer.add_special_tokens(list(codes))
    old, new = (tokenizer.token_to_id(code) for code in codes)
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{codes[0]} $A </s>", special_tokens=[(codes[0], old), ("</s>", tokenizer.token_to_id("</s>"))]
    )
    ids = tokenizer.encode(f"{codes[0]} {text}").ids
    assert ids[:2] == [old, old] and in_language(tokenizer, "it", ids, codes[1]) == [new, *ids[1:]]


def test_what_is_no_language() -> None:
    tokenizer = tiny.tokenizer("<s> $A")
    tokenizer.add_special_tokens(["de_DE"])
    with pytest.raises(UsageError, match="it is not told which language"):
        in_language(tokenizer, "it", tokenizer.encode("the cat").ids, "de_DE")
    number = tokenizer.token_to_id("de_DE")
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="de_DE $A", special_tokens=[("de_DE", number)]
    )
    for code in ("fr_XX", "the"):
        with pytest.raises(UsageError, match=f"knows no language {code}") as refused:
            in_language(tokenizer, "it", tokenizer.encode("the cat").ids, code)
        assert "de_DE" in str(refused.value.hint)


def test_pieces_that_a_vocabulary_lacks_are_unknown(tmp_path: Path) -> None:
    folder = words.write(tmp_path / "it", "m2m100")
    numbers = json.loads((folder / "vocab.json").read_text())
    kept = [word for word, i in numbers.items() if i < 4 or i % 5]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(kept)}))
    ours, changed = tokenizer_of(settled.content(folder, "m2m_100"), "it", ""), 0
    with quiet() as transformers:
        theirs: Any = transformers.AutoTokenizer.from_pretrained(folder)
        for text in words.TEXTS:
            ids = ours.encode(text).ids
            assert known(ours, ids) == theirs(text)["input_ids"], text
            changed += known(ours, ids) != ids
    assert changed > len(words.TEXTS) // 2
