"""Small tokenizers of every kind, trained here, and their fields in a GGUF file as llama.cpp's converter has them."""

from __future__ import annotations

import io
from typing import Any

import gguf
import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tests.models.files.ggufs import Extra

CORPUS = [
    "The capital of France is Paris, and the answer is: 2017. I'm sure; you'll see, they've said so!",
    "def add(a, b):\n    return a + b\n\n\nprint(add(1, 22), 333, 4444)  # done\n",
    "Größe, façade, naïve café; Über 3,14 Straßen.",
    "Москва — столица России. Привет, мир!",
    "東京は日本の首都です。你好，世界！",
    "the cat sat on the mat and the dog ran under the hat; then they went home one day",
    "  leading spaces,   many    spaces\tand a tab",
] * 4
TEXTS = [
    *CORPUS[:7],
    "x",
    " x",
    "   x  ",
    "It's THE END, isn't it? WE'LL SEE'VE",
    "1 12 123 1234 12345678 ½ ² ٣",
    "a\nb\n\nc\r\nd \n e\t\tf",
    "emoji 🙂👍🏽 and \u200d joiners, e\u0301 composed or é",
    "http://example.org/a/b?c=d&e=f#g //// ****",
    "trailing newline\n",
    "…“quotes” ‘single’ — dashes – ﬁ ligature Å ①",
    "[1, 2, 3] {'a': 4} <b>bold</b> <0x0A>",
    "한국어 문장 และภาษาไทย नमस्ते",
]
CONTROL, OWN, UNKNOWN, BYTE = (
    gguf.TokenType.CONTROL,
    gguf.TokenType.USER_DEFINED,
    gguf.TokenType.UNKNOWN,
    gguf.TokenType.BYTE,
)


def byte_pairs(cut: Any, special: tuple[str, ...], size: int = 600) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of byte-level BPE; special tokens come first."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = cut
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    import json

    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def byte_fields(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], split: str, kinds: dict[str, Any], **ids: int
) -> Extra:
    """The fields of such a tokenizer; `kinds` of its special tokens, `ids` of bos, eos and so on."""
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)

    def write(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        if split:
            writer.add_tokenizer_pre(split)
        writer.add_token_list(tokens)
        writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
        writer.add_token_merges([" ".join(merge) for merge in merges])
        named(writer, ids)

    return write


def named(writer: gguf.GGUFWriter, ids: dict[str, int]) -> None:
    """Which tokens begin and end a text."""
    for name, i in ids.items():
        getattr(writer, f"add_{name}_token_id")(i)


def sentences(**options: Any) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece model, trained on the corpus."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, minloglevel=2, num_threads=1, **options
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def piece_fields(
    model: sentencepiece.SentencePieceProcessor, kind: str, own: tuple[str, ...] = (), **ids: int
) -> Extra:
    """The fields of a SentencePiece model; tokens of its `own` are spelled with spaces, as the converter has them."""
    size = model.get_piece_size()

    def type_of(i: int) -> Any:
        if model.id_to_piece(i) in own:
            return OWN
        if model.is_unknown(i):
            return UNKNOWN
        if model.is_control(i):
            return CONTROL
        return BYTE if model.is_byte(i) else gguf.TokenType.NORMAL

    def write(writer: gguf.GGUFWriter) -> None:
        pieces = [model.id_to_piece(i) for i in range(size)]
        writer.add_tokenizer_model(kind)
        writer.add_token_list([piece.replace("▁", " ") if piece in own else piece for piece in pieces])
        writer.add_token_scores([-1000.0 if piece in own else model.get_score(i) for i, piece in enumerate(pieces)])
        writer.add_token_types([type_of(i) for i in range(size)])
        named(writer, {"unk": model.unk_id()} | ids)

    return write
