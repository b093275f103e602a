"""How the command line speaks: progress and errors on standard error, one JSON object or plain lines on
standard output.

It must not import torch, nor know what a command does.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from puma.errors import PumaError, UsageError

if TYPE_CHECKING:
    from puma.client.client import Client
    from puma.client.cost import Cost


Progress = Callable[[str, int, int], None]  # what, done, of

PATIENCE = 2.0  # seconds for which something may go on unseen, before a line says what it is

LOCAL = "All three parties ran on this one machine: good for trying, not for secrets."


# What turns the direction of what follows (UAX 9), and ends lines where no line end is seen.
_DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"


def stand_in() -> None:
    """Give a program whose starter has closed standard streams some that lead nowhere, before other files take their
    numbers; and write as escapes what the terminal has no letters for."""
    for name, how in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, how, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def reading() -> Iterator[None]:
    """While standard input is read; UsageError if it is no text."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is no text ({error})", "pipe in text in UTF-8") from None


def harmless(text: str, kept: str = "\n\t") -> str:
    """Text of others, such as a model's, a party's or a tokenizer's, that no terminal takes for a command.

    Control characters but those `kept`, marks of direction and half characters are written as escapes. Everything that
    is printed passes here, whoever wrote it.
    """
    return "".join(c if c in kept or not _commands(c) else ascii(c)[1:-1] for c in text)


def _commands(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cs") or c in _DIRECTIONS


def say(text: str = "", end: str = "\n") -> None:
    """One line, or a piece of one, on standard output, at once."""
    print(harmless(text), end=end, flush=True)


def note(text: str) -> None:
    """One line on standard error: for people, whoever reads the answer."""
    print(harmless(text), file=sys.stderr, flush=True)


def warned(message: Warning | str, *_: object) -> None:
    """A warning as a line on standard error, without the place in the program that it comes from."""
    note(f"warning: {message}")


def undrawn(words: str) -> None:
    """What a model asks of chance, where there is none."""
    if words:
        note(f"note: {words}")


def left_aside(tensors: Sequence[str]) -> None:
    """Which tensors of a checkpoint belong to layers that its config.json does not count, if there are any."""
    if tensors:
        what = f"{len(tensors)} tensors, {tensors[0]} first, belong to layers that config.json does not count"
        note(f"note: {what}; they are left aside")


def assumed(config: Any) -> None:
    """That a model's vectors are made in a way that its folder does not name, if so."""
    from puma.models import heads, vectors

    if vectors(config) and not heads(config).pooling.modes:
        note(
            "Each vector is the mean of the token states, made one long: the model's folder does not say how it pools."
        )


def answer(content: Mapping[str, Any]) -> None:
    """The one JSON object; what is harmless is written as it is, the rest in JSON's own escapes."""
    words = json.dumps(content, ensure_ascii=False)
    say("".join(json.dumps(c)[1:-1] if _commands(c) or not _written(c) else c for c in words))


def _written(c: str) -> bool:
    """Whether standard output has a letter for it, as those in UTF-8 have for all."""
    try:
        return c.isascii() or bool(c.encode(getattr(sys.stdout, "encoding", None) or "utf-8"))
    except UnicodeEncodeError:
        return False


def failed(error: PumaError, as_json: bool) -> None:
    """What happened and what can be done about it."""
    if as_json:
        answer({"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}})
        return
    for name, words in (("error", error.message), ("hint", error.hint)):
        if words:  # in one line each: a message of others must not write a hint of ours
            print(harmless(f"{name}: {words}", kept="\t"), file=sys.stderr)


def interrupted(as_json: bool) -> None:
    """The user wants to leave."""
    if as_json:
        answer({"error": {"kind": "Interrupted", "message": "interrupted", "hint": ""}})
    else:
        print("\ninterrupted", file=sys.stderr)


@contextmanager
def progress(as_json: bool) -> Iterator[Progress]:
    """A line that says what is going on, gone when it is over. Where standard error is no terminal, a line for each
    thing that takes long, which stays; nothing beside JSON."""
    if as_json:
        yield lambda what, done, of: None
        return
    if not sys.stderr.isatty():
        slow = _Slow()
        try:
            slow.show("loading", 0, 1)
            yield slow.show
        finally:
            slow.over()
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task, doing = bars.add_task("loading", total=None), "loading"

        def show(what: str, done: int, of: int) -> None:
            nonlocal doing
            if what != doing:
                bars.reset(task)
                doing = what
            bars.update(task, description=harmless(what, kept=""), completed=done, total=of if of > 1 else None)

        yield show


class _Slow:
    """Notes what has been going on for long, once for each thing."""

    def __init__(self) -> None:
        self._doing, self._timer = "", threading.Timer(0.0, note)

    def show(self, what: str, done: int, of: int) -> None:
        """Something else begins, or the same goes on."""
        if what == self._doing:
            return
        self.over()
        self._doing, self._timer = what, threading.Timer(PATIENCE, note, [f"{what} ..."])
        self._timer.daemon = True
        self._timer.start()

    def over(self) -> None:
        """Nothing is left to be noted."""
        self._timer.cancel()


class Typewriter:
    """Prints a text that grows; holds back a character of which only some bytes have come."""

    def __init__(self) -> None:
        self._printed = 0

    def show(self, text: str, last: bool = False) -> None:
        """Print what `text` has beyond what was printed before; with `last`, half characters, too."""
        ready = text if last else text.rstrip("\ufffd")
        say(ready[self._printed :], end="")
        self._printed = max(self._printed, len(ready))


def columns(text: str) -> int:
    """How many a terminal takes for a text: two for wide letters, none for marks on others (UAX 11)."""
    wide = (unicodedata.east_asian_width(c) in "WF" for c in text if not unicodedata.combining(c))
    return sum(2 if each else 1 for each in wide)


def padded(text: str, width: int) -> str:
    """A text and spaces behind it, up to so many columns."""
    return text + " " * (width - columns(text))


def table(rows: Sequence[Sequence[str]]) -> None:
    """Columns under the titles in the first row; words to the left, numbers to the right."""
    widths = [max(columns(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        first, *rest = (
            " " * (w - columns(cell)) + cell if i else padded(cell, w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join([first, *rest]).rstrip())


def amount(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def traffic(count: float) -> str:
    """Bytes that networks are paid for, in millions or thousand millions."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def seconds(count: float) -> str:
    """A duration for people."""
    if count < 120:
        return f"{count:.2f} s" if count < 10 else f"{count:.0f} s"
    return f"{count / 60:.0f} min" if count < 7200 else f"{count / 3600:.1f} h"


def cost_line(cost: Cost, tokens: int = 0, texts: int = 0) -> str:
    """Seconds, tokens or texts a second, rounds and bytes in one line."""
    done, what = (tokens, "tokens") if tokens else (texts, "texts")
    speed = [f"{done / cost.seconds:.2f} {what}/s"] if done and cost.seconds else []
    seconds = f"{cost.seconds:.2f} s" + (f" ({cost.prefill:.2f} s to the first token)" if tokens else "")
    ahead = cost.prepared
    offline = (
        f"prepared in {ahead.seconds:.2f} s with {amount(ahead.offline)}"
        if ahead
        else f"{amount(cost.offline)} offline"
    )
    drafts = cost.drafts
    guessed = (
        [f"{drafts.accepted} of {drafts.drafted} drafts right, {drafts.a_step:.2f} tokens a step"] if drafts else []
    )
    second = [] if cost.second is None else [f"{amount(cost.second)} of them by the second dealer"]
    sent = [f"{cost.rounds:,} rounds", f"{amount(cost.online)} online", offline, *second]
    return ", ".join([seconds, *speed, *guessed, *sent])


def prepared(*costs: Cost) -> dict[str, Any]:
    """Whether requests ran on preprocessing, and what had been spent on it beforehand."""
    ahead = [cost.prepared for cost in costs if cost.prepared]
    spent = {
        "seconds": sum(prepared_request.seconds for prepared_request in ahead),
        "bytes": sum(prepared_request.offline for prepared_request in ahead),
    }
    return {"prepared": len(ahead) == len(costs)} | ({"ahead": spent} if ahead else {})


def drafted(cost: Cost) -> dict[str, Any]:
    """What became of drafts, where there were some."""
    return {} if cost.drafts is None else {"drafts": cost.drafts.told()}


def profile(approximation: str) -> dict[str, str]:
    """Which functions were computed with, where it was not the usual ones."""
    return {} if approximation == "spline" else {"approximation": approximation}


def doubtful(cluster: Client) -> dict[str, bool]:
    """Whether the answer may be wrong, where it was taken all the same."""
    return {"out_of_range": True} if cluster.session.doubtful else {}


def breakdown(parts: Sequence[Mapping[str, Any]]) -> None:
    """What each component cost, the largest first."""
    timed = any(part.get("seconds") for part in parts)
    rows = [["component", "seconds", "rounds", "bytes"]]
    for part in sorted(parts, key=lambda part: -part["bytes"]):
        if not part["bytes"] and part.get("seconds", 0) < 0.01:
            continue
        seconds = f"{part['seconds']:.2f}" if timed else ""
        rows.append([part["name"], seconds, f"{part['rounds']:,}", amount(part["bytes"])])
    table(rows if timed else [[first, *rest] for first, _, *rest in rows])


def asked_line(name: str, layers: int, prompt: int, new: int, batch: int) -> str:
    """What was measured or counted."""
    each, out = f", {batch} times" if batch > 1 else "", f", {new} out" if new else ""
    return f"{name}, {layers} layers, {prompt} tokens in{out}{each}"
