"""SentencePiece models (tokenizer.model, spiece.model): pieces and settings, out of a protobuf message.

Field numbers are those of sentencepiece_model.proto (github.com/google/sentencepiece). This file must not know what
is made of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from puma.errors import CheckpointError

UNIGRAM, BPE = 1, 2
CONTROL, OWN = 3, 4  # kinds of pieces: special ones, and those that were asked for
PIECES, TRAINER, NORMALIZER = 1, 2, 3  # fields of a model
MODEL_TYPE, BYTES, UNKNOWN, CHARSMAP = 3, 35, 40, 2
MARKS = {"unk_token": (40, 45, 0, "<unk>"), "bos_token": (41, 46, 1, "<s>"), "eos_token": (42, 47, 2, "</s>")}
NEGATIVE = 1 << 31  # numbers are 32 bits wide: from here on they stand for less than 0


class Spelled(NamedTuple):
    """A token's text, its score, and of what kind it is."""

    text: str
    score: float
    kind: int


class Pieces(NamedTuple):
    """All that is read of a model; `marks` are the tokens that begin and end texts, and stand for what is none."""

    pieces: list[Spelled]
    kind: int
    unknown: int
    charsmap: bytes
    bytes_too: bool = False  # whether bytes stand for what is no piece
    marks: Mapping[str, str] = {}


def parse(content: bytes, where: str) -> Pieces:
    """A model file; CheckpointError if it is none."""
    try:
        return _parse(content)
    except (IndexError, ValueError, struct.error) as error:
        raise CheckpointError(f"{where} is no SentencePiece model: {error}", "download the model again") from error


def _parse(content: bytes) -> Pieces:
    pieces: list[Spelled] = []
    trainer, normalizer = dict[int, int | bytes](), dict[int, int | bytes]()
    for number, value in fields(content):
        if number == PIECES and isinstance(value, bytes):
            inner = {1: b"", 2: b"\0\0\0\0", 3: 1} | dict(fields(value))
            text, score, kind = inner[1], inner[2], inner[3]
            if not (isinstance(text, bytes) and isinstance(score, bytes) and isinstance(kind, int)):
                raise ValueError("a piece has fields of other types")
            pieces.append(Spelled(text.decode(), *struct.unpack("<f", score), kind))
        elif number in (TRAINER, NORMALIZER) and isinstance(value, bytes):
            (trainer if number == TRAINER else normalizer).update(fields(value))
    if not pieces:
        raise ValueError("it has no pieces")
    kind, unknown, charsmap = trainer.get(MODEL_TYPE, UNIGRAM), trainer.get(UNKNOWN, 0), normalizer.get(CHARSMAP, b"")
    if not (isinstance(kind, int) and isinstance(unknown, int) and isinstance(charsmap, bytes)):
        raise ValueError("its settings have other types")
    return Pieces(pieces, kind, unknown, charsmap, bool(trainer.get(BYTES, 0)), dict(_marks(trainer)))


def _marks(trainer: Mapping[int, int | bytes]) -> Iterator[tuple[str, str]]:
    """Those that have a number."""
    for name, (number, text, usual, spelled) in MARKS.items():
        at, found = trainer.get(number, usual), trainer.get(text, spelled.encode())
        if isinstance(at, int) and at < NEGATIVE and isinstance(found, bytes):
            yield name, found.decode() or spelled


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: their numbers, and whole numbers or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, form = key >> 3, key & 7
        if form == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if form == 2:
            size, at = _varint(message, at)
        elif form in (1, 5):
            size = 8 if form == 1 else 4
        else:
            raise ValueError(f"field {number} is of a form that is not known")
        if at + size > len(message):
            raise ValueError("it is cut off")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise ValueError("a number has no end")


def merges(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The merges that a vocabulary of byte pairs stands for: a token is made of any two that it can be split into,
    in the order of tokens, as the library lists them (transformers, generate_merges).
    """
    found: list[tuple[int, int, int, str, str]] = []
    for token, rank in vocabulary.items():
        halves = [(token[:i], token[i:]) for i in range(1, len(token))]
        known = [(one, other) for one, other in halves if one in vocabulary and other in vocabulary]
        for one, other in sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]])):
            found.append((rank, len(one), len(other), one, other))
    return [pair[3:] for pair in sorted(found, key=lambda each: each[:3])]
