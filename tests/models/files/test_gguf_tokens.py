"""A file's tokenizer gives the ids that the library it comes from gives, on texts of many kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

from puma.errors import CheckpointError, UnsupportedModel
from puma.models.checkpoint import Checkpoint, load
from puma.models.files.gguf import tokens
from tests.models import tiny
from tests.models.files import ggufs, vocabularies
from tests.models.files.vocabularies import CONTROL, OWN, TEXTS

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>")
KINDS = {token: CONTROL for token in SPECIAL[:3]} | {"<think>": OWN}
MARKED = [*TEXTS, "<|im_start|>user\nhi<|im_end|>\n<think> so </think>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with room for every vocabulary here."""
    return tiny.llama(tmp_path_factory.mktemp("llama"), vocab_size=1000)


def fields(extra: ggufs.Extra, path: Path, architecture: str = "llama") -> dict[str, Any]:
    """What a file says that holds nothing but a tokenizer."""
    from puma.models.files.gguf import header

    writer = gguf.GGUFWriter(path, architecture)
    extra(writer)
    ggufs.finish(writer)
    return dict(header.read(path).fields)


def opened(extra: ggufs.Extra, path: Path, architecture: str = "llama") -> Tokenizer:
    """Its tokenizer, as a client opens it."""
    return Tokenizer.from_buffer(tokens.files(fields(extra, path, architecture))["tokenizer.json"]())


def usual(vocabulary: dict[str, int], merges: list[tuple[str, str]], kind: str, cut: Any = None) -> Any:
    """transformers' own tokenizer of a kind, with these special tokens."""
    import transformers

    found = getattr(transformers, kind)(vocab=vocabulary, merges=merges)
    found.add_special_tokens({"additional_special_tokens": list(SPECIAL[:3])})
    found.add_tokens(["<think>"])
    if cut:
        found.backend_tokenizer.pre_tokenizer = cut
    return found


def isolated(pattern: str) -> Any:
    """The words that a pattern finds, in bytes."""
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


# The patterns as the models' own tokenizer.json has them.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
NEMO = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}"
    r"\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
DIGITS = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES])
BYTE_LEVEL: dict[str, tuple[str, Any]] = {
    "gpt-2": ("GPT2Tokenizer", None),
    "smollm": ("GPT2Tokenizer", DIGITS),
    "qwen2": ("Qwen2Tokenizer", None),
    "llama-bpe": ("GPT2Tokenizer", isolated(LLAMA3)),
    "tekken": ("GPT2Tokenizer", isolated(NEMO)),
}


@pytest.mark.parametrize("split", BYTE_LEVEL)
def test_byte_pairs(split: str, tmp_path: Path) -> None:
    kind, cut = BYTE_LEVEL[split]
    vocabulary, merges = vocabularies.byte_pairs(cut or BYTES, SPECIAL)
    right = usual(vocabulary, merges, kind, cut)
    extra = vocabularies.byte_fields(vocabulary, merges, split, KINDS, eos=2)
    found = opened(extra, tmp_path / "model.gguf")
    for text in MARKED:
        ids = found.encode(text, add_special_tokens=False).ids
        assert ids == right(text, add_special_tokens=False).input_ids, text
        assert found.decode(ids) == right.decode(ids, skip_special_tokens=True), text
    assert found.get_vocab_size() == len(vocabulary)


def test_words_that_are_tokens_are_not_cut(tmp_path: Path) -> None:
    """LLaMA 3 has tokens to which no merges lead."""
    vocabulary, merges = vocabularies.byte_pairs(BYTES, SPECIAL)
    vocabulary["ĠSwitzerland"] = len(vocabulary)
    for split, whole in (("llama-bpe", True), ("gpt-2", False)):
        extra = vocabularies.byte_fields(vocabulary, merges, split, KINDS)
        found = opened(extra, tmp_path / f"{split}.gguf").encode(" Switzerland", add_special_tokens=False).ids
        assert (found == [vocabulary["ĠSwitzerland"]]) == whole


@pytest.mark.parametrize(
    "architecture,split,pattern",
    [("gpt2", "", "gpt-2"), ("qwen2", "", "qwen2"), ("qwen2", "default", "qwen2"), ("gptneox", "", "olmo")],
)
def test_older_files_say_no_split(architecture: str, split: str, pattern: str, tmp_path: Path) -> None:
    vocabulary, merges = vocabularies.byte_pairs(BYTES, SPECIAL)
    one, other = (
        opened(vocabularies.byte_fields(vocabulary, merges, name, KINDS), tmp_path / f"{i}.gguf", architecture)
        for i, name in enumerate((split, pattern))
    )
    assert one.to_str() == other.to_str()


@pytest.mark.parametrize("split", ["", "default", "deepseek-llm", "something"])
def test_splits_that_are_not_implemented(split: str, tmp_path: Path, folder: Path) -> None:
    vocabulary, merges = vocabularies.byte_pairs(BYTES, SPECIAL)
    extra = vocabularies.byte_fields(vocabulary, merges, split, KINDS)
    checkpoint = load(ggufs.write(tmp_path / "model.gguf", folder, extra=extra))
    with pytest.raises(UnsupportedModel, match="pre-tokenizer") as caught:
        checkpoint.open_tokenizer()
    assert "llama-bpe" in caught.value.hint


# SentencePiece.

BOUNDARY = {"model_type": "bpe", "byte_fallback": True, "character_coverage": 0.995, "vocab_size": 640}
RAW = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "split_digits": True}


@pytest.mark.parametrize("prefix", [True, False])
def test_pieces_of_llama(prefix: bool, tmp_path: Path) -> None:
    right = vocabularies.sentences(**BOUNDARY, **RAW, add_dummy_prefix=prefix)
    fields = vocabularies.piece_fields(right, "llama", bos=1, eos=2)

    def extra(writer: gguf.GGUFWriter) -> None:
        fields(writer)
        writer.add_add_space_prefix(prefix)

    found = opened(extra, tmp_path / "model.gguf")
    for text in TEXTS:
        ids = found.encode(text, add_special_tokens=False).ids
        assert ids == right.encode(text), text
        assert found.decode(ids) == right.decode(ids) == text, text
    assert found.encode("a cat").ids == [1, *right.encode("a cat")]
    assert found.encode("a<s>cat", add_special_tokens=False).ids == [*right.encode("a"), 1, *right.encode("cat")]


def test_pieces_of_gemma(tmp_path: Path) -> None:
    """Newlines and runs of spaces are tokens of its own; merges go by the order of tokens, not by their scores."""
    own = ("<start_of_turn>", "<end_of_turn>", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "▁▁▁▁", "<b>")
    right = vocabularies.sentences(**BOUNDARY, **RAW, add_dummy_prefix=False, user_defined_symbols=list(own))
    found = opened(vocabularies.piece_fields(right, "llama", own=own, bos=1, eos=2), tmp_path / "model.gguf", "gemma3")
    for text in (*TEXTS, "<start_of_turn>user\n\nhi    there<end_of_turn>\n"):
        ids = found.encode(text, add_special_tokens=False).ids
        assert ids == right.encode(text), text
        assert found.decode(ids) == text, text


def test_spaces_after_the_special_tokens_of_phi3(tmp_path: Path) -> None:
    right = vocabularies.sentences(**BOUNDARY, **RAW, control_symbols=["<|user|>", "<|end|>"])
    extra = vocabularies.piece_fields(right, "llama", bos=1, eos=2)
    found = opened(extra, tmp_path / "model.gguf", "phi3")
    user, end = right.piece_to_id("<|user|>"), right.piece_to_id("<|end|>")
    ids = found.encode("<|user|>\n a cat<|end|> <s> so", add_special_tokens=False).ids
    assert ids == [user, *right.encode("a cat"), end, 1, *right.encode(" so")]


@pytest.mark.parametrize("architecture", ["t5", "bert"])
def test_unigrams(architecture: str, tmp_path: Path) -> None:
    right = vocabularies.sentences(model_type="unigram", vocab_size=120, pad_id=3)
    charsmap = sentencepiece_table(right)
    fields = vocabularies.piece_fields(right, "t5", bos=1, eos=2)

    def extra(writer: gguf.GGUFWriter) -> None:
        fields(writer)
        writer.add_precompiled_charsmap(charsmap)

    found = opened(extra, tmp_path / "model.gguf", architecture)
    for text in TEXTS:
        assert found.encode(text, add_special_tokens=False).ids == right.encode(text), text
    ids = right.encode("the cat")
    assert found.encode("the cat").ids == ([1, *ids, 2] if architecture == "bert" else [*ids, 2])
    pair = found.encode("the cat", "the cat").ids
    assert pair == ([1, *ids, 2, 2, *ids, 2] if architecture == "bert" else [*ids, 2, *ids, 2])


def sentencepiece_table(model: Any) -> bytes:
    """The table of characters in a serialised model: of its normaliser (field 3), the second field."""

    def parts(content: bytes) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        at = 0

        def number() -> int:
            nonlocal at
            value = shift = 0
            while True:
                byte = content[at]
                value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
                if byte < 128:
                    return value

        while at < len(content):
            key = number()
            if key & 7 == 2:
                size = number()
                found[key >> 3] = content[at : at + size]
                at += size
            elif key & 7 == 0:
                number()
            else:
                at += 4 if key & 7 == 5 else 8
        return found

    return parts(parts(model.serialized_model_proto())[3])[2]


def test_blanks_of_t5(tmp_path: Path) -> None:
    right = vocabularies.sentences(model_type="unigram", vocab_size=120)
    fields = vocabularies.piece_fields(right, "t5", eos=2)

    class Longer(gguf.GGUFWriter):
        def add_token_list(self, tokens: Any) -> None:
            super().add_token_list([*tokens, "[PAD120]", "[PAD121]"])

        def add_token_types(self, types: Any) -> None:
            super().add_token_types([*types, gguf.TokenType.UNUSED, gguf.TokenType.UNUSED])

        def add_token_scores(self, scores: Any) -> None:
            super().add_token_scores([*scores, -1000.0, -1000.0])

    writer = Longer(tmp_path / "model.gguf", "t5")
    fields(writer)
    ggufs.finish(writer)
    from puma.models.files.gguf import header

    said = header.read(tmp_path / "model.gguf").fields
    found = Tokenizer.from_buffer(tokens.files(said)["tokenizer.json"]())
    assert [found.token_to_id(f"<extra_id_{i}>") for i in range(2)] == [121, 120]
    assert found.encode("the <extra_id_0> cat", add_special_tokens=False).ids.count(121) == 1


# WordPiece.

WORDS = [
    "[PAD]",
    "[unused0]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "cat",
    "##s",
    "sat",
    "on",
    "mat",
    ".",
    ",",
    "!",
    "un",
    "##want",
    "##ed",
    "cafe",
    "東",
    "2",
    "##0",
    "##1",
    "[",
]


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("cased", [True, False])
def test_word_pieces(cased: bool, older: bool, tmp_path: Path) -> None:
    from transformers import BertTokenizer

    words = [*WORDS, "The", "Café"] if cased else WORDS
    vocabulary = {word: i for i, word in enumerate(words)}
    right = BertTokenizer(vocab=vocabulary, do_lower_case=not cased)
    control = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

    def spelled(word: str) -> str:
        if word in control or (older and word == "[unused0]"):
            return word
        return word[2:] if word.startswith("##") else "▁" + word

    def extra(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("bert")
        writer.add_token_list([spelled(word) for word in words])
        writer.add_token_types([CONTROL if word in control else gguf.TokenType.NORMAL for word in words])
        vocabularies.named(writer, {"unk": 2, "sep": 4, "pad": 0, "mask": 5} | ({} if older else {"bos": 3}))

    found = opened(extra, tmp_path / "model.gguf", "bert")
    for text in (*TEXTS, "The cats sat, unwanted!", "CAFÉ 2011 [MASK] [unused0] 東東", "café Café"):
        assert found.encode(text).ids == right(text).input_ids, text
    pair = found.encode("the cat", "sat on")
    expected = right("the cat", "sat on")
    assert (pair.ids, pair.type_ids) == (expected.input_ids, expected.token_type_ids)
    assert found.decode(found.encode("the cats").ids) == "the cats"


# What travels with it.


def chatting(writer: gguf.GGUFWriter) -> None:
    """A byte-level tokenizer with a chat template."""
    vocabulary, merges = vocabularies.byte_pairs(BYTES, SPECIAL)
    vocabularies.byte_fields(vocabulary, merges, "gpt-2", KINDS, bos=1, eos=0, pad=2)(writer)
    writer.add_chat_template("{{ messages[0].content }}<|im_end|>")


def checkpoint_of(extra: Callable[[gguf.GGUFWriter], object], folder: Path, path: Path) -> Checkpoint:
    """A whole model with this tokenizer."""
    return load(ggufs.write(path, folder, extra=extra))


def test_public_files_and_special_tokens(folder: Path, tmp_path: Path) -> None:
    found = checkpoint_of(chatting, folder, tmp_path / "model.gguf")
    assert [*found.files] == ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    assert found.files["chat_template.jinja"]() == b"{{ messages[0].content }}<|im_end|>"
    words = json.loads(found.files["tokenizer_config.json"]())
    assert words == {"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>", "pad_token": "<|im_end|>"}
    assert found.bos == 1
    assert found.eos == (0, 2)  # the end of a turn in the template ends an answer, too
    again = checkpoint_of(chatting, folder, tmp_path / "again.gguf")
    assert again.files["tokenizer.json"]() == found.files["tokenizer.json"]()  # whose digest clients compare


def test_ends_that_the_file_names(folder: Path, tmp_path: Path) -> None:
    def extra(writer: gguf.GGUFWriter) -> None:
        vocabulary, merges = vocabularies.byte_pairs(BYTES, SPECIAL)
        vocabularies.byte_fields(vocabulary, merges, "gpt-2", KINDS, eos=0, eot=2)(writer)

    assert checkpoint_of(extra, folder, tmp_path / "model.gguf").eos == (0, 2)


@pytest.mark.parametrize("said,begins", [(None, True), (True, True), (False, False)])
def test_what_is_put_around_a_text(said: bool | None, begins: bool, tmp_path: Path) -> None:
    vocabulary, merges = vocabularies.byte_pairs(BYTES, SPECIAL)

    def extra(writer: gguf.GGUFWriter) -> None:
        vocabularies.byte_fields(vocabulary, merges, "llama-bpe", KINDS, bos=1, eos=2)(writer)
        if said is not None:
            writer.add_add_bos_token(said)
        writer.add_add_eos_token(True)

    ids = opened(extra, tmp_path / "model.gguf").encode("cat").ids
    assert (ids[0] == 1) == begins
    assert ids[-1] == 2


def test_no_tokenizer(folder: Path, tmp_path: Path) -> None:
    found = load(ggufs.write(tmp_path / "model.gguf", folder))
    assert not found.files
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        found.open_tokenizer()


@pytest.mark.parametrize(
    "change,kind,words",
    [
        (lambda w: w.add_tokenizer_model("rwkv"), UnsupportedModel, "rwkv"),
        (lambda w: w.add_tokenizer_model("gpt2"), CheckpointError, "without merges"),
    ],
)
def test_tokenizers_that_cannot_be_read(change: Any, kind: Any, words: str, folder: Path, tmp_path: Path) -> None:
    def extra(writer: gguf.GGUFWriter) -> None:
        change(writer)
        writer.add_tokenizer_pre("gpt-2")

    found = load(ggufs.write(tmp_path / "model.gguf", folder, extra=extra))
    with pytest.raises(kind, match=words) as caught:
        found.open_tokenizer()
    assert caught.value.hint


def test_merges_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    vocabulary, _ = vocabularies.byte_pairs(BYTES, SPECIAL)
    extra = vocabularies.byte_fields(vocabulary, [("nowhere", "found")], "gpt-2", KINDS)
    found = load(ggufs.write(tmp_path / "model.gguf", folder, extra=extra))
    with pytest.raises(CheckpointError, match="merges do not fit"):
        found.open_tokenizer()
