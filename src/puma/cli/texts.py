"""What commands about texts have in common: the words of the command line, what is said of each text, and the JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from puma.cli import ui
from puma.cli.generation import read
from puma.cli.where import Where
from puma.errors import UsageError

if TYPE_CHECKING:
    from puma.client.client import Client

Cutting = Literal["longest_first", "only_first", "only_second", "refuse"]


def split_words(where: Where, model: str, more: Sequence[str]) -> tuple[str | None, list[str]]:
    """The model on this machine, and the other words; a cluster's client names its model elsewhere."""
    return (model, list(more)) if where.cluster is None else (None, [model, *more])


def check_kind(kinds: Sequence[Any], clear: Any) -> None:
    """UsageError, before parties start, for a model whose head is of none of these kinds."""
    from puma.client.heads import asking

    asking.check_kind(clear, *kinds)


def answered(content: dict[str, Any], cluster: Client, approximation: str) -> None:
    """One JSON object, with what the request cost."""
    cost = cluster.cost
    spent = {"seconds": cost.seconds, "rounds": cost.rounds, "bytes": cost.bytes()}
    ui.answer(content | spent | ui.profile(approximation) | ui.doubtful(cluster))


def note_cut(found: Sequence[Any]) -> None:
    """Say how many of them lost their end."""
    count = sum(each.cut for each in found)
    if count:
        ui.note(f"note: {count} of {len(found)} were longer than the model takes and were cut; see --cut")


def cut_fields(cut: bool) -> dict[str, bool]:
    """What JSON says of a text that lost its end; nothing of any other."""
    return {"cut": True} if cut else {}


def given_texts(words: list[str], file: Path | None) -> list[str]:
    """The texts: of the command line, or a file's lines, or those of standard input if there is nothing else."""
    if words and file is not None:
        raise UsageError("--texts takes the place of TEXT", "leave out one of them")
    if words:
        return words
    if file is not None:
        return read(file)
    if sys.stdin.isatty():
        raise UsageError("there is no text", "pass at least one, or --texts FILE, or pipe them in")
    found = [line for line in piped().split("\n") if line.strip()]
    if not found:
        raise UsageError("there is no text", "write one in each line of standard input")
    return found


def piped() -> str:
    """Standard input, whose lines end as a file's do, whoever wrote it: Python reads files so, and not this."""
    with ui.reading():
        return sys.stdin.read().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
