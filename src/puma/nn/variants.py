"""Functions that have a second protocol, of fewer rounds and more words, and plans: which of them a request takes so.

A plan is public and part of a request, like its lengths: all parties compute by the same one. What a variant saves and
costs is counted by a dry run, never declared here. This file must not know protocols.
"""

from __future__ import annotations

from collections.abc import Sequence

from puma.errors import UsageError

MAXIMUM = "maximum"  # a row's largest: more entries meet in a turn, and the winner is selected by all bits at once
EXPONENTIALS = "exponentials"  # they have room for their sums, so that these need not wait until they are lifted
INVERSE = "inverse"  # reciprocals and roots: all intervals are looked up at once, and found by digits that overlap
NORM = "norm"  # rows are centred before they grow, so that the mean need not be lifted
TABLES = "tables"  # whether an input lies in a table is told by one digit, where that takes few bits
RANGES = "ranges"  # the same of few inputs, where it takes more
GATED = "gated"  # a gated product is opened in the ring that the next matrix reads
DIRECT = "direct"  # a row over its length, and attention over its sum, likewise, by products of two words

VARIANTS = (MAXIMUM, EXPONENTIALS, INVERSE, NORM, TABLES, RANGES, GATED, DIRECT)
LEAN: tuple[str, ...] = ()
QUICK: tuple[str, ...] = (MAXIMUM, INVERSE, TABLES, RANGES, DIRECT)  # together no more than a fifth more bytes
PLANS = ("lean", "quick", "auto")
HINT = f"choose lean, quick or auto, or functions of {', '.join(VARIANTS)}"


def named(plan: str) -> tuple[str, ...] | None:
    """The functions of a plan by its name, or by their own names with commas between; None for auto, which depends on
    the network. UsageError for another name."""
    if plan == "auto":
        return None
    if plan in ("lean", "quick"):
        return QUICK if plan == "quick" else LEAN
    return checked([name.strip() for name in plan.split(",")])


def quick_of(plan: str) -> tuple[str, ...]:
    """The same of a plan that a network does not decide; UsageError for auto."""
    quick = named(plan)
    if quick is None:
        raise UsageError("auto needs a network", "choose lean or quick")
    return quick


def checked(quick: Sequence[str]) -> tuple[str, ...]:
    """These functions in the order in which plans have them; UsageError for one that there is not."""
    unknown = [name for name in quick if name not in VARIANTS]
    if unknown:
        raise UsageError(f"there is no plan or function {unknown[0][:40]!r}", HINT)
    return tuple(name for name in VARIANTS if name in quick)


def title(quick: Sequence[str]) -> str:
    """What a plan is called."""
    return {LEAN: "lean", QUICK: "quick"}.get(tuple(quick), ",".join(quick))
