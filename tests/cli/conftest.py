"""Run command lines in this process, and lend them processes that are running already."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from puma.cli import app, ui
from puma.local import cluster as local
from puma.local.cluster import Trio
from puma.measure import bench, rates, speed
from puma.measure.rates import Speed, Work


class Ran(NamedTuple):
    """What a command line left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        assert self.out.count("\n") == 1 and not self.err, self
        return json.loads(self.out)


Run = Callable[..., Ran]


class Lent:
    """A trio that outlives its user."""

    def __init__(self, trio: Trio) -> None:
        self.session, self.pids, self.store = trio.session, trio.pids, None
        self.share, self.open_up = trio.share, trio.open_up

    def close(self) -> None: ...

    def kill(self) -> None: ...

    def __enter__(self) -> Lent:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def puma(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command line."""

    def run(*words: object) -> Ran:
        code = app.run([str(word) for word in words])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


@pytest.fixture(autouse=True)
def known_speed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Speed:
    """No command measures this machine, which takes a minute."""
    each = Work(1e-3, 1e-9, 1e-9, 1e-10)
    known = Speed((each, each, each), 1.1, 2)
    monkeypatch.setattr(speed, "measure", lambda progress: known)
    kept = tmp_path_factory.mktemp("speed") / "it.json"
    monkeypatch.setattr(rates, "path", lambda: kept)
    return known


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, nothing is said of what takes long."""
    monkeypatch.setattr(ui, "PATIENCE", 1e6)


@pytest.fixture
def lent(processes: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find three processes running."""
    for room in (local, bench):
        monkeypatch.setattr(
            room,
            "Trio",
            lambda progress=None, store=None, approximation="spline", threads=None, dealers=1: Lent(processes),
        )


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be started."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a command started parties before it had looked at its input")

    for room in (local, bench):
        monkeypatch.setattr(room, "Trio", start)
