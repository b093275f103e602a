"""What becomes of a result whose flag is set: an error, or a warning for who takes it all the same.

This file must not know links, nor how a flag comes about.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

from puma.client import arguments
from puma.errors import OutOfRange, OutOfRangeWarning

Judgement = Literal["refuse", "warn"]
JUDGEMENTS: tuple[Judgement, ...] = ("refuse", "warn")
HINT = 'see `puma check MODEL --text "..."`, or take the answer all the same by out_of_range="warn"'


def judgement(value: object) -> Judgement:
    """One of the two; UsageError for anything else."""
    return arguments.one_of(value, "out_of_range", JUDGEMENTS)  # type: ignore[return-value]


def out_of_range(prompts: Sequence[int], count: int) -> OutOfRange:
    """The error about these of so many prompts."""
    which = "" if count == 1 else f" for prompt {', '.join(str(i + 1) for i in prompts)} of {count}"
    what = f"a number left its range while the answer{which} was computed: it may be wrong"
    return OutOfRange(what, HINT, prompts)


def judge(prompts: Sequence[int], count: int, how: Judgement) -> None:
    """OutOfRange if some of so many prompts are flagged; a warning where the answer is taken all the same."""
    if not prompts:
        return
    error = out_of_range(prompts, count)
    if how == "refuse":
        raise error
    warnings.warn(error.message, OutOfRangeWarning, stacklevel=3)
