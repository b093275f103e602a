"""Text to token ids and back, at the client; refuses what the model could not serve.

It knows the checkpoint's tokenizer and the public config, and must not know of shares or parties.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from puma.errors import CheckpointError, InputError
from puma.models.architecture import Inputs
from puma.models.architectures import Config, architecture, inputs
from puma.models.reading.lacking import known

MAX_PROMPTS = 256
MAX_ELEMENTS = 1 << 23  # of the largest tensor that several prompts make, so that every message fits into a frame


class Tokens(NamedTuple):
    """Token ids of a text, and which of two texts each belongs to; for an image model, its patches as ids."""

    ids: list[int]
    types: list[int]


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json, without its padding and truncation."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error
    return tokenizer_of(content, str(path), "download the model again")


def tokenizer_of(content: bytes, where: str, hint: str) -> Tokenizer:
    """The same from the file's content; CheckpointError, with the hint, if what lies `where` is no tokenizer."""
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(f"{where} cannot be read: {error}", hint) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(tokenizer: Tokenizer, config: Config, text: str, pair: str | None = None, special: bool = True) -> Tokens:
    """Token ids, if `special` with the special tokens that the checkpoint puts around a text or a pair of texts."""
    found = encoded(tokenizer, text, pair, special)
    return checked(config, known(tokenizer, found.ids), found.type_ids)


def encoded(tokenizer: Tokenizer, text: str, pair: str | None = None, special: bool = True) -> Any:
    """The same as the tokenizer gives it, with the characters that tokens come from; InputError for no tokens."""
    if not text.strip() or (pair is not None and not pair.strip()):
        raise InputError("the prompt is empty", "write at least one word")
    try:
        found = tokenizer.encode(text, pair, add_special_tokens=special)
    except Exception as error:  # the library raises plain Exception, for a character without a token
        raise InputError(f"the prompt has a character that is no token ({error})", "leave it out") from error
    if not found.ids:
        raise InputError("no character of the prompt is a token of this model", "use the model's alphabet")
    return found


WRONG = "tokenizer.json and config.json do not belong together"


def checked(config: Config, ids: list[int], types: list[int], hint: str = WRONG) -> Tokens:
    """What a model reads of ids and types; InputError, with the hint, for tokens that it does not have."""
    if max(ids) >= config.vocab_size:
        raise InputError(f"token {max(ids)} lies outside the vocabulary of {config.vocab_size}", hint)
    return Tokens(*_read(ids, types, inputs(config)))


def _read(ids: list[int], types: list[int], reads: Inputs) -> tuple[list[int], list[int]]:
    """What a model is given of these tokens: not the padding that a text ends with, which is nothing to a classifier.

    No token sees a later one there, so those before are computed as they would be with it; the first one stays. A model
    that knows no types takes no notice of them.
    """
    if reads.barred in ids:
        hint = "leave it out: the model counts the places of a text without it"
        raise InputError(f"the prompt holds the padding token ({reads.barred})", hint)
    length = len(ids) if reads.ends is None else _ended(ids, reads.ends)
    while length > 1 and ids[length - 1] == reads.padding:
        length -= 1
    return ids[:length], types[:length] if reads.types > 1 else [0] * length


def _ended(ids: list[int], end: int) -> int:
    """How many tokens there are up to the first that ends a text; the first alone where none does, as the library has
    it (transformers 5, modeling_clip.py)."""
    end = max(ids) if end < 0 else end
    return ids.index(end) + 1 if end in ids else 1


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of token ids, without special tokens."""
    return tokenizer.decode(list(ids), skip_special_tokens=True)


def check_length(config: Config, prompt: int, tokens: int = 1) -> None:
    """Refuse a prompt that with its new tokens goes beyond the context; the last one is never fed back."""
    if prompt < 1:
        raise InputError("the prompt is empty", "write at least one word")
    if prompt > config.context:
        raise InputError(f"the prompt has {prompt} tokens, and the model's context {config.context}", _shorter(config))
    room = inputs(config).room(prompt)
    if tokens > room:
        raise InputError(
            f"{tokens} new tokens after a prompt of {prompt} exceed the model's context of {config.context}",
            f"ask for at most {room} tokens, or {_shorter(config)}",
        )


def _shorter(config: Config) -> str:
    """What to do about a text that is too long."""
    rope = getattr(config, "rope", None)
    if rope is None or rope.scaling != "longrope":
        return "shorten the prompt"
    return "shorten the prompt: beyond that longrope turns every token in another way, which is not implemented"


def check_batch(config: Config, lengths: Sequence[int], tokens: int | Sequence[int] = 1) -> None:
    """Refuse prompts of which one does not fit into the context, or several together into the parties' memory.

    `tokens` are the new ones of each, or of all alike.
    """
    if not lengths:
        raise InputError("there is no prompt", "pass at least one")
    each = [tokens] * len(lengths) if isinstance(tokens, int) else tokens
    for length, new in zip(lengths, each, strict=True):
        check_length(config, length, new)
    prompts, longest = len(lengths), max(lengths)
    if prompts == 1:
        return
    if prompts > MAX_PROMPTS:
        raise InputError(f"{prompts} prompts are more than {MAX_PROMPTS}", "send them in several requests")
    whole = max(length + new for length, new in zip(lengths, each, strict=True)) - 1
    elements = prompts * architecture(config).largest(config, longest, whole)
    if elements > MAX_ELEMENTS:
        raise InputError(
            f"{prompts} prompts of up to {longest} tokens, and {max(each)} new ones each, make tensors of {elements:,} "
            f"numbers, more than {MAX_ELEMENTS:,}",
            "send fewer or shorter prompts in one request",
        )
