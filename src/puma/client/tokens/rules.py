"""What a model's generation_config.json asks of each next token, for a client who sees logits.

`Rules` are its settings, checked, and `Following` applies them to the logits of prompts as these grow, in the order and
by the formulas of transformers 5 (generation/logits_process.py). What cannot be followed is named, so that nobody takes
an answer for the library's that is none. This file must not know links or models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from torch import Tensor, tensor, where

from puma.errors import UnsupportedModel
from puma.models.files import generation as said

Id = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Penalty = Annotated[float, Meta(gt=0)]
Ids = Annotated[list[Id], Meta(min_length=1)]
NEVER = -math.inf
_settings = msgspec.json.Decoder(dict[str, Any])
Further = Callable[[Tensor, Sequence[int]], None]  # what else holds of logits (vocabulary,) after new tokens
UNSEEN, SEARCHED = "needs logits", "searched"  # why rules are not followed, and how more of them are


class Rules(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Settings by their own names; `others` are those that are not followed, whatever a client sees."""

    sequence_bias: tuple[tuple[Ids, float], ...] = ()
    encoder_repetition_penalty: Penalty = 1.0
    repetition_penalty: Penalty = 1.0
    no_repeat_ngram_size: Count = 0
    encoder_no_repeat_ngram_size: Count = 0
    bad_words_ids: tuple[Ids, ...] = ()
    min_length: Count = 0
    min_new_tokens: Count = 0
    forced_bos_token_id: Id | None = None
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    max_initial_timestamp_index: Count | None = None
    do_sample: bool = False
    temperature: Annotated[float, Meta(gt=0)] = 1.0
    top_k: Count = 0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    others: dict[str, Any] = {}

    @classmethod
    def of(cls, files: Mapping[str, Callable[[], bytes]]) -> Rules:
        """Of a model's public files; UnsupportedModel for settings that make no sense."""
        if said.FILE not in files:
            return cls()
        try:
            raw = said.kept(_settings.decode(files[said.FILE]()))
            known = {name: value for name, value in raw.items() if name in cls.__struct_fields__}
            others = {name: value for name, value in raw.items() if name not in known}
            return msgspec.convert(known | {"others": others}, cls)
        except msgspec.DecodeError as error:
            raise UnsupportedModel(f"{said.FILE}: {error}", f"correct or remove {said.FILE}") from error

    @property
    def from_logits(self) -> dict[str, Any]:
        """What only who sees logits can follow."""
        return {name: value for name, value in self._said.items() if name in said.RULES}

    @property
    def forced_end(self) -> int | None:
        """The token that a searched text ends with where it has not ended by itself, if one is said."""
        found = self.others.get("forced_eos_token_id")
        found = found[0] if isinstance(found, list) and found else found
        return found if isinstance(found, int) and found >= 0 else None

    @property
    def chances(self) -> dict[str, Any]:
        """How the library would draw tokens, if it would."""
        named = {name: value for name, value in self._said.items() if name in said.CHANCES}
        return {"temperature": 1.0} | named if self.do_sample else {}

    @property
    def _said(self) -> dict[str, Any]:
        return msgspec.to_builtins(self)

    def unfollowed(self, why: str = "", by_parties: Sequence[str] = ()) -> str:
        """One line about what answers do without; nothing if there is nothing. `why` logits are of no use, if so; the
        parties follow some rules by themselves."""
        others = {name: value for name, value in self.others.items() if why != SEARCHED or name not in said.SEARCHES}
        words = [f"{named(others)} (not implemented)"] if others else []
        rest = {name: value for name, value in self.from_logits.items() if name not in by_parties}
        words += [f"{named(rest)} ({why})"] if rest and why == UNSEEN else []
        return f"{said.FILE} asks for what is not followed: {'; '.join(words)}" if words else ""

    def by_parties(self, barred: Sequence[int], first: Sequence[int], begins: Sequence[int]) -> list[str]:
        """Which of these rules hold whoever chooses tokens: where those `barred` are never chosen, those `first` not as
        an answer's first one, and every answer `begins` with some."""
        bad = [ids for ids in self.bad_words_ids if len(ids) > 1 or ids[0] not in barred]
        kept = {
            "bad_words_ids": not bad,
            "suppress_tokens": {*self.suppress_tokens} <= {*barred},
            "begin_suppress_tokens": {*self.begin_suppress_tokens} <= {*barred, *first},
            "forced_bos_token_id": self.forced_bos_token_id in begins[1:],
        }
        return [name for name, holds in kept.items() if holds]

    def undrawn(self) -> str:
        """One line about chance that answers do without, where the likeliest token is taken."""
        if not self.chances:
            return ""
        return f"{said.FILE} asks for samples ({named(self.chances)}): here the likeliest token is taken"

    def following(
        self, prompts: Sequence[Sequence[int]], begins: Sequence[int], eos: Sequence[int],
        further: Further | None = None,
    ) -> Following | None:  # fmt: skip
        """What follows these rules for prompts that are about to be continued, if there is any.

        `begins` are the tokens that an answer begins with in a model that reads the prompt apart from it; `further`
        changes logits last, by the new tokens.
        """
        return Following(self, prompts, begins, eos, further) if self.from_logits or further else None


def named(settings: Mapping[str, Any]) -> str:
    """Settings as they were written, long ones cut."""
    written = {name: json.dumps(value) for name, value in settings.items()}
    return ", ".join(f"{name} = {text if len(text) <= 24 else text[:20] + ' ...'}" for name, text in written.items())


class Following:
    """Prompts as they grow, under rules."""

    def __init__(
        self, rules: Rules, prompts: Sequence[Sequence[int]], begins: Sequence[int], eos: Sequence[int],
        further: Further | None = None,
    ) -> None:  # fmt: skip
        self._rules, self._prompts, self._eos = rules, [[*ids] for ids in prompts], [*eos]
        self._texts = [[*(begins or ids)] for ids in prompts]
        self._began = [len(text) for text in self._texts]
        self._live, self._further = [*range(len(self._texts))], further
        bad = [ids for ids in rules.bad_words_ids if len(ids) > 1 or ids[0] not in self._eos]
        self._biases = [(ids[-1], ids[:-1], bias) for ids, bias in rules.sequence_bias]
        self._bad = [(ids[-1], ids[:-1], NEVER) for ids in bad]

    def keep(self, live: Sequence[int]) -> None:
        """From now on logits come of these prompts only."""
        self._live = [*live]

    def add(self, tokens: Sequence[int]) -> None:
        """These were chosen."""
        for row, token in zip(self._live, tokens, strict=True):
            self._texts[row].append(token)

    def add_one(self, place: int, token: int) -> None:
        """This was chosen for one prompt, by its number at the beginning."""
        self._texts[place].append(token)

    def ruled_one(self, place: int, logits: Tensor) -> Tensor:
        """Logits (vocabulary,) by which the next token of one prompt is to be chosen."""
        found = logits.clone()
        self._ruled(found, place, self._texts[place])
        return found

    def ruled(self, logits: Tensor) -> Tensor:
        """Logits (prompts, vocabulary) by which tokens are to be chosen; minus infinity for those that may not be."""
        found = logits.clone()
        for row, place in zip(found, self._live, strict=True):
            self._ruled(row, place, self._texts[place])
        return found

    def going_on(self, row: Tensor, tokens: Sequence[int]) -> Tensor:
        """The same for the first prompt alone (vocabulary,), whose answer has these tokens."""
        found = row.clone()
        self._ruled(found, 0, [*self._texts[0], *tokens])
        return found

    def _ruled(self, row: Tensor, place: int, text: Sequence[int]) -> None:
        """All rules for one prompt and its text so far, in the library's order; the row is changed."""
        rules, prompt = self._rules, self._prompts[place]
        new = len(text) - self._began[place]
        _biased(row, text, self._biases)
        _scaled(row, prompt, 1 / rules.encoder_repetition_penalty)
        _scaled(row, text, rules.repetition_penalty)
        _barred(row, _repeated(text, text, rules.no_repeat_ngram_size))
        _barred(row, _repeated(text, prompt, rules.encoder_no_repeat_ngram_size))
        _biased(row, text, self._bad)
        if len(text) < rules.min_length or new < rules.min_new_tokens:
            _barred(row, self._eos)
        first = rules.forced_bos_token_id
        if first is not None and len(text) == 1 and first < len(row):
            row.fill_(NEVER)
            row[first] = 0.0
        _barred(row, rules.suppress_tokens)
        later = self._began[place] == 1 and first is not None
        if new == int(later):
            _barred(row, rules.begin_suppress_tokens)
        if self._further is not None:
            self._further(row, text[self._began[place] :])


def _barred(row: Tensor, tokens: Sequence[int]) -> None:
    known = [token for token in tokens if 0 <= token < len(row)]
    if known:
        row[known] = NEVER


def _biased(row: Tensor, text: Sequence[int], biases: Sequence[tuple[int, Sequence[int], float]]) -> None:
    """A number added to the token that would complete each sequence."""
    for token, before, bias in biases:
        if token < len(row) and (not before or [*before] == [*text[-len(before) :]]):
            row[token] += bias


def _scaled(row: Tensor, text: Sequence[int], penalty: float) -> None:
    """Tokens that are there already become less likely, or likelier by a penalty below 1."""
    if penalty != 1 and text:
        at = tensor(sorted({token for token in text if token < len(row)}))
        values = row[at]
        row[at] = where(values < 0, values * penalty, values / penalty)


def _repeated(text: Sequence[int], source: Sequence[int], size: int) -> list[int]:
    """Tokens that would complete a sequence of this size which `source` has already."""
    if not size or len(text) < size - 1:
        return []
    begun = [*text[len(text) - size + 1 :]]
    return [source[i + size - 1] for i in range(len(source) - size + 1) if [*source[i : i + size - 1]] == begun]
