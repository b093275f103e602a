"""What a caller passes, made into what the library works with, or a UsageError before anything is sent.

Numbers of numpy and torch count as numbers. This file must not know what an argument is for.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, SupportsFloat

from puma.errors import InputError, UsageError
from puma.nn.variants import HINT, named


def count(value: Any, what: str, least: int | None = None, most: int | None = None) -> int:
    """A whole number, from `least` to `most` if there are such, of whatever type says that it is one."""
    try:
        found = operator.index(value)
    except TypeError:
        found = None
    if found is None or isinstance(value, bool):
        raise UsageError(f"{what} cannot be {_named(value)}", "pass a whole number")
    if least is not None and found < least:
        raise UsageError(f"{what} cannot be {found}", f"pass {least} or more")
    if most is not None and found > most:
        raise UsageError(f"{what} cannot be {found}", f"pass {most} or less")
    return found


def number(value: Any, what: str) -> float:
    """A finite number of whatever type says that it is one."""
    is_one = isinstance(value, SupportsFloat) and not isinstance(value, str | bytes | bool)
    try:
        found = float(value) if is_one else math.nan
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"{what} cannot be {_named(value)}", "pass a number")
    return found


def text(value: Any) -> str:
    """One text."""
    if not isinstance(value, str):
        raise InputError(f"a text cannot be {_named(value)}", "pass a str, or several in a list")
    return value


def texts(value: Any) -> list[str]:
    """One text, or several."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable) or isinstance(value, bytes | bytearray):
        raise InputError(f"a text cannot be {_named(value)}", "pass a str, or several in a list")
    return [text(each) for each in value]


def sentences(value: Any) -> list[tuple[str, str | None]]:
    """What is to be encoded: one text, or a pair of them in a tuple, or several of these in something else."""
    if isinstance(value, str | tuple):
        return [_sentence(value)]
    if not isinstance(value, Iterable) or isinstance(value, bytes | bytearray):
        raise InputError(f"a text cannot be {_named(value)}", "pass a str, a pair in a tuple, or several in a list")
    return [_sentence(each) for each in value]


def _sentence(value: Any) -> tuple[str, str | None]:
    if not isinstance(value, tuple):
        return text(value), None
    if len(value) != 2:
        raise InputError(f"a tuple of {len(value)} is neither a text nor a pair", "pass several texts in a list")
    return text(value[0]), text(value[1])


def token_ids(value: Any) -> list[int]:
    """One prompt of token ids."""
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        raise InputError(f"token ids cannot be {_named(value)}", "pass a list of whole numbers")
    return [count(each, "a token id", 0) for each in value]


def flag(value: Any, what: str) -> bool:
    """Yes or no, and nothing that only looks like it."""
    if not isinstance(value, bool):
        raise UsageError(f"{what} cannot be {_named(value)}", "pass True or False")
    return value


def one_of(value: Any, what: str, names: Sequence[str]) -> str:
    """One of these names."""
    if not isinstance(value, str) or value not in names:
        shown = value if isinstance(value, str) else _named(value)
        raise UsageError(f"{what} cannot be {shown}", f"choose one of {', '.join(names)}")
    return value


def callback(value: Any, what: str) -> Callable[..., Any] | None:
    """Something to call, or nothing."""
    if value is not None and not callable(value):
        raise UsageError(f"{what} cannot be {_named(value)}", "pass a function, or leave it out")
    return value


def path_like(value: Any, what: str) -> str:
    """A path as a str."""
    try:
        found = os.fspath(value)
    except TypeError:
        found = b""
    if not isinstance(found, str) or not found or "\0" in found:
        raise UsageError(f"{what} cannot be {_named(value)}", "pass a path")
    return found


def _named(value: Any) -> str:
    """For an error: what it was, without what a long or secret one holds."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return f"of type {type(value).__name__}"


def variants(value: object) -> str:
    """Which functions are quick, as `nn.variants.named` takes it; UsageError for anything else."""
    if not isinstance(value, str):
        raise UsageError(f"a plan cannot be of type {type(value).__name__}", HINT)
    named(value)
    return value


def distant(value: object, audited: bool) -> str:
    """The same of parties with a network between them, of which P1 and P2 tell unless something is given; UsageError
    where an audited session would ask them, which no canary does."""
    if value is None:
        return "lean" if audited else "auto"
    found = variants(value)
    if audited and named(found) is None:
        raise UsageError("an audited session does not ask how the network is: no canary does", "choose lean or quick")
    return found
