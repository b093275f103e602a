"""What a client asks of a model for sentences besides the texts: which prompt goes before them, whether a text that is
too long is cut, how many numbers of a vector are kept, and of what length it is.

Names are those of sentence-transformers. This file must not know sessions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from puma.client import arguments
from puma.errors import InputError, UsageError
from puma.models import architecture
from puma.models.config import Config
from puma.models.reading.wording import PASSAGES, Wording
from puma.models.text import MAX_ELEMENTS, MAX_PROMPTS, Tokens


class Reading(NamedTuple):
    """A text as a model reads it, and how many tokens of it were left out because it was too long."""

    tokens: Tokens
    left_out: int = 0


@dataclass(frozen=True)
class Asked:
    """`prompt` goes before each text, or the model's one of this `prompt_name`, or its default; `truncate` leaves out
    what lies beyond the longest text that it reads; of a vector the first `dimensions` are kept; it gets length one if
    `normalize`, keeps its own if that is False, and by default is what the model's folder says.
    """

    prompt: str | None = None
    prompt_name: str | None = None
    truncate: bool = False
    dimensions: int | None = None
    normalize: bool | None = None

    @classmethod
    def of(
        cls, prompt: Any = None, prompt_name: Any = None, truncate: Any = False, dimensions: Any = None,
        normalize: Any = None,
    ) -> Asked:  # fmt: skip
        """The same, checked; UsageError for what makes no sense."""
        if prompt is not None and prompt_name is not None:
            raise UsageError("a prompt and a prompt's name are one too many", "pass one of them")
        for text, what in ((prompt, "a prompt"), (prompt_name, "a prompt's name")):
            if text is not None and not isinstance(text, str):
                raise UsageError(f"{what} cannot be of type {type(text).__name__}", "pass a str")
        return cls(
            prompt, prompt_name, arguments.flag(truncate, "truncate"),
            None if dimensions is None else arguments.count(dimensions, "dimensions", 1),
            None if normalize is None else arguments.flag(normalize, "normalize"),
        )  # fmt: skip

    def before(self, wording: Wording) -> str:
        """What goes before each text; UsageError for a name that the model has not. As in the library, there always
        are a query and a document, of models without such a prompt nothing.
        """
        if self.prompt is not None:
            return self.prompt
        name = wording.default if self.prompt_name is None else self.prompt_name
        if name and name not in wording.prompts and name not in ("query", "document"):
            known = ", ".join(sorted(wording.prompts)) or "none"
            raise UsageError(f"the model has no prompt {name[:100]}", f"its prompts: {known}")
        return wording.prompts.get(name, "")

    def check(self, width: int) -> None:
        """UsageError for more dimensions than a vector has."""
        if self.dimensions is not None and self.dimensions > width:
            what = f"a vector of this model has {width} dimensions, and not {self.dimensions}"
            raise UsageError(what, f"ask for 1 to {width}")

    def vector(self, values: Tensor, wording: Wording) -> Tensor:
        """What the client makes of a vector (width,). One that is cut has no longer length one unless that is asked."""
        if wording.normalised and self.normalize is not False:
            values = _normalised(values)
        values = values[: self.dimensions or wording.dimensions or None]
        return _normalised(values) if self.normalize else values


USUAL = Asked()


def passage(wording: Wording) -> str:
    """The name of the prompt for documents: the first of the library's names that the model has."""
    return next((name for name in PASSAGES if name in wording.prompts), PASSAGES[0])


def divided(config: Config, lengths: Sequence[int], most: int | None, padded: int = 0) -> Iterator[slice]:
    """Which texts go in one request, in their order: as many as the parties' memory and the limit on tokens allow.

    Lengths are those of the texts, or all `padded`. InputError if one alone has more than `most` tokens.
    """
    kind, start, longest, total = architecture(config), 0, 0, 0
    for i, length in enumerate([padded or length for length in lengths]):
        if most is not None and length > most:
            hint = "shorten it; `puma cluster show` tells the cluster's limit"
            raise InputError(f"a text has {length} tokens, and a request at most {most}", hint)
        wider = max(longest, length)
        elements = (i + 1 - start) * kind.largest(config, wider, wider)
        full = i - start >= MAX_PROMPTS or elements > MAX_ELEMENTS or (most is not None and total + length > most)
        if full and i > start:
            yield slice(start, i)
            start, wider, total = i, length, 0
        longest, total = wider, total + length
    if lengths:
        yield slice(start, len(lengths))


def _normalised(values: Tensor) -> Tensor:
    return values / torch.linalg.vector_norm(values).clamp(min=1e-12)
