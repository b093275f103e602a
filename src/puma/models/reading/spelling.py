"""What each token of a tokenizer stands for: its own bytes, a spelling that no other token has, its place in a text.

A token may be part of a character, so that its bytes are no text; and two tokens may have the same bytes. It knows
tokenizers only, and must not know models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
BROKEN = "\ufffd"  # what decoders write for bytes that are no text, perhaps not yet


def _byte_letters() -> dict[str, int]:
    """The letter for each byte in byte-level vocabularies: its own where it can be seen, else one from U+0100 on.

    As OpenAI's GPT-2 has it (encoder.py, bytes_to_unicode).
    """
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


LETTERS = _byte_letters()


class Spelling:
    """Of one tokenizer, and of a vocabulary that may be larger than it: ids without a token stand for nothing."""

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self._tokenizer, self._size = tokenizer, size
        self._added = {id: token.content for id, token in tokenizer.get_added_tokens_decoder().items()}
        self._read = _reader(tokenizer)

    def bytes_of(self, token: int) -> bytes:
        """The token's own bytes; those of an added token, such as </s>, are its name's."""
        if token in self._added:
            return self._added[token].encode()
        word = self._tokenizer.id_to_token(token)
        return b"" if word is None else self._read(word)

    def text(self, token: int) -> str:
        """The token as text, and no other's: "bytes:\\xe2\\x82" for part of a character, as OpenAI writes it."""
        return self._texts[token]

    @cached_property
    def _texts(self) -> list[str]:
        """Of all tokens. Ordinary ones choose first, then bytes and added ones, which are written out if need be."""
        found, taken = [""] * self._size, set[str]()
        for token in sorted(range(self._size), key=self._rank):
            data = self.bytes_of(token)
            written = "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
            choices = [written, f"{written}#{token}"]
            with suppress(UnicodeDecodeError):
                choices.insert(0, data.decode())
            found[token] = next(text for text in choices if text not in taken)
            taken.add(found[token])
        return found

    def _rank(self, token: int) -> int:
        if token in self._added:
            return 2
        return 1 if BYTE.fullmatch(self._tokenizer.id_to_token(token) or "") else 0

    def places(self, ids: Sequence[int]) -> list[int]:
        """Where each token begins in the text that all of them stand for, in characters.

        A token that continues a character begins where that character does.
        """
        found, shown, begun, read = list[int](), 0, 0, 0
        for end in range(1, len(ids) + 1):
            found.append(shown)
            before, now = self._decode(ids[begun:read]), self._decode(ids[begun:end])
            if len(now) > len(before) and not now.endswith(BROKEN):
                shown, begun, read = shown + len(now) - len(before), read, end
        return found

    def places_in(self, text: str) -> list[int]:
        """Where each of a text's tokens begins in it; special tokens around it, at its ends."""
        found, last = list[int](), 0
        for start, end in self._tokenizer.encode(text).offsets:
            found.append(max(last, start if end > start else last))
            last = max(last, end)
        return found

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)


def settled(text: str) -> int:
    """How many characters of a text will not change whatever comes: all but the parts of one at its end."""
    return len(text.rstrip(BROKEN))


def _reader(tokenizer: Tokenizer) -> Callable[[str], bytes]:
    """How the tokenizer's decoder reads a word of the vocabulary."""
    parts = list[dict[str, Any]]()
    if tokenizer.decoder is not None:
        _flat(json.loads(tokenizer.decoder.__getstate__()), parts)
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        return _byte_level
    spaces = [part["replacement"] for part in parts if part["type"] == "Metaspace"]
    spaces += [part["suffix"] for part in parts if part["type"] == "BPEDecoder"]
    changes = [(mark, " ") for mark in spaces]
    for part in parts:
        if part["type"] == "Replace" and "String" in part["pattern"]:
            changes.append((part["pattern"]["String"], part["content"]))

    def read(word: str) -> bytes:
        byte = BYTE.fullmatch(word) if "ByteFallback" in kinds else None
        if byte:
            return bytes([int(byte[1], 16)])
        for old, new in changes:
            word = word.replace(old, new)
        return word.encode()

    return read


def _flat(decoder: dict[str, Any], into: list[dict[str, Any]]) -> None:
    """A decoder's parts, in their order."""
    if decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            _flat(part, into)
    else:
        into.append(decoder)


def _byte_level(word: str) -> bytes:
    """Letters that stand for no byte are themselves."""
    return b"".join(bytes([LETTERS[letter]]) if letter in LETTERS else letter.encode() for letter in word)
