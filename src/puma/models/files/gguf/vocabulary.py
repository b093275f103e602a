"""The vocabulary in a GGUF file's fields: tokens, what kind each is of, and which of them are special.

This file must not know how a text becomes tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from tokenizers import AddedToken

from puma.errors import CheckpointError

UNKNOWN, CONTROL, OWN, UNUSED, BYTE = 2, 3, 4, 5, 6  # ggml's kinds of tokens; 1 is an ordinary one
SPECIALS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "sep": "seperator", "mask": "mask"}
ENDS = ("eos", "eot", "eom")  # of a text, of a turn, of a message


class Vocabulary:
    """What the fields below tokenizer.ggml say."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self.model, self.split = str(self.get("model", "")), str(self.get("pre", ""))
        self.architecture = str(fields.get("general.architecture", ""))

    def get(self, name: str, default: Any = None) -> Any:
        """A field of the tokenizer."""
        return self._fields.get(f"tokenizer.ggml.{name}", default)

    @cached_property
    def tokens(self) -> list[str]:
        """All tokens, as the file spells them."""
        found = self.get("tokens")
        if not isinstance(found, list) or not found or not all(isinstance(token, str) for token in found):
            raise CheckpointError("the file holds no tokens", "convert the model again, with its tokenizer")
        return found

    @cached_property
    def kinds(self) -> Sequence[int]:
        """The kind of each token."""
        found = self.get("token_type") or [1] * len(self.tokens)
        return found if len(found) == len(self.tokens) else self.lacking("token_type")

    @cached_property
    def scores(self) -> Sequence[float]:
        """The score of each token."""
        found = self.get("scores") or []
        return found if len(found) == len(self.tokens) else self.lacking("scores")

    def lacking(self, name: str) -> Any:
        """CheckpointError for a field that does not fit the tokens."""
        raise CheckpointError(
            f"the file has not one of tokenizer.ggml.{name} for each token", "convert the model again"
        )

    def special(self, name: str) -> int | None:
        """The id of the token for the beginning, the end and so on, if there is one."""
        found = self.get(f"{SPECIALS.get(name, name)}_token_id")
        if name == "bos" and found is None:
            found = self.get("cls_token_id")
        return found if isinstance(found, int) and 0 <= found < len(self.tokens) else None

    def spelled(self, name: str) -> str | None:
        """The same as text."""
        found = self.special(name)
        return None if found is None else self.tokens[found]

    @property
    def ends(self) -> list[int]:
        """Tokens at which an answer ends: those that the file names, and the end of a turn in its chat template."""
        found = [self.special(name) for name in ENDS]
        template = str(self._fields.get("tokenizer.chat_template", ""))
        turns = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>")
        named = [self.ids.get(turn) for turn in turns if turn in template]
        marked = [i for i in named if i is not None and self.kinds[i] in (CONTROL, OWN)]
        return [*dict.fromkeys(i for i in [*found, *marked] if i is not None)]

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each token; of two that are spelled alike, the first."""
        found: dict[str, int] = {}
        for i, token in enumerate(self.tokens):
            found.setdefault(token, i)
        return found

    def added(self, kinds: Sequence[int] = (UNKNOWN, CONTROL, OWN)) -> list[AddedToken]:
        """Tokens that are found in a text before it is cut; those of their own are no special ones."""
        return [
            AddedToken(token, normalized=False, special=kind != OWN, rstrip=self._rstrip(token))
            for token, kind in zip(self.tokens, self.kinds, strict=True)
            if kind in kinds and token
        ]

    def _rstrip(self, token: str) -> bool:
        """Whether spaces after a token are a part of it: of Phi-3's they are, which llama.cpp knows by name."""
        plain = ("<unk>", "<s>", "<|endoftext|>")
        return self.architecture == "phi3" and self.model == "llama" and token not in plain
