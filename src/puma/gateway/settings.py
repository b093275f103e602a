"""How a gateway answers, as its operator wants it. It must not know HTTP, nor how the parties are reached."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from puma.errors import UsageError

HERE = "this machine"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HOST = re.compile(r"[a-z0-9]([a-z0-9._-]{0,252}[a-z0-9])?|\[[0-9a-f:.]+\]")


@dataclass(frozen=True)
class Settings:
    """How a gateway answers.

    `name` is the model's; `most` the new tokens of an answer at most; `temperature`, `top_k` and `top_p`
    those of requests which name none; the last two need logits.
    `fixed`: parties always compute as many tokens as were asked for, and do not learn how long answers are. `waiting`:
    requests that may queue; `together`: those that are with the parties at a time, each in a session. `hosts` are the
    names by which this gateway may be called. `places` says where P0, P1 and P2 run, for people to read. `keeps`: the
    parties keep what they compute of chats, for the next turn. `drain`: seconds that answers under way may take once
    the gateway is told to stop. `draft` says what makes drafts of answers, lookup or a model on this machine; such
    answers are paced.
    """

    name: str
    most: int = 512
    temperature: float = 1.0
    fixed: bool = False
    waiting: int = 64
    hosts: tuple[str, ...] = LOOPBACK
    places: tuple[str, str, str] = (HERE, HERE, HERE)
    together: int = 64
    top_k: int = 0
    top_p: float = 1.0
    keeps: bool = True
    drain: float = 2.0
    draft: str | None = None

    @property
    def local(self) -> bool:
        """Whether one machine runs all three parties, and so could read everything."""
        return self.places == (HERE, HERE, HERE)


def called(host: str) -> str:
    """A name or address of a machine, without scheme and port, as a Host header has it; UsageError if it is none."""
    name = host.lower()
    name = f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
    if not HOST.fullmatch(name):
        raise UsageError(
            f"{host[:100]!r} is no name of a machine", "pass it without scheme and port, as gw.example.org"
        )
    return name


def short_name(source: str | Path | None) -> str:
    """What a model is called over HTTP: a hub's name as it is, a folder's or file's own, or the embedded model's."""
    if source is None:
        return "stories"
    path = Path(source)
    if path.is_file():
        return path.name.removesuffix(".gguf")
    return path.resolve().name if path.exists() else str(source)
