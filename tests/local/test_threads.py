"""How many threads a party computes with: who says so, what it is otherwise, and numbers that are refused."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import pytest

from puma import LocalCluster
from puma.cli import app
from puma.config import PARTIES, Cluster, Party, Policy
from puma.errors import PumaError, UsageError
from puma.local import trio
from puma.local.cluster import Trio
from puma.party import daemon
from puma.party.daemon import _on_this_machine
from puma.party.launched import process
from puma.wire.launch import Start


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, 5000])
def test_numbers_that_make_no_sense(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.nursery, "party", lambda program: pytest.fail("a process was started"))
    for make in (Trio, LocalCluster):
        with pytest.raises(UsageError, match="threads cannot be"):
            make(threads=threads)


def test_parties_that_have_theirs_already() -> None:
    with pytest.raises(UsageError, match="have their threads already"):
        LocalCluster(trio=object(), threads=2)  # type: ignore[arg-type]


def test_each_party_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the cores unless somebody says another number; a party uses what it is told, and nothing else."""
    told = list[Start]()

    class Silent:
        def __init__(self) -> None:
            self.stdout, self.pid = io.StringIO(""), 0

        def kill(self) -> None:
            pass

        def gone(self, seconds: float | None = 0.0) -> bool:
            return True

        def pipes(self) -> tuple[()]:
            return ()

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(trio.nursery, "party", lambda program: Silent())
    monkeypatch.setattr(trio.nursery, "load", lambda program: None)
    monkeypatch.setattr(trio, "_tell", lambda process, words: told.append(words))
    for threads in (None, 5):
        with pytest.raises(PumaError, match="did not start"):
            Trio(threads=threads)
    assert [start.threads for start in told] == [2, 2, 2, 5, 5, 5]
    used = list[int]()
    monkeypatch.setattr(process.threads, "use", used.append)
    monkeypatch.setattr(process, "run", lambda start: used.append(-start.rank) or 0)
    monkeypatch.setattr(process, "_told", lambda decoder: told[-1])
    monkeypatch.setattr(process.signal, "signal", lambda *_: None)
    assert process.main() == 0 and used == [5, -2]


def test_a_daemon_divides_by_the_parties_at_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ["10.0.0.1:9000", "10.0.0.1:9001", "10.0.0.2:9000"]
    parties = tuple(Party(rank, address, f"{rank}" * 64) for rank, address in enumerate(hosts))
    made = Cluster(parties, None, {}, {}, Policy())
    assert [_on_this_machine(made, rank) for rank in range(PARTIES)] == [2, 2, 1]
    used = list[int]()
    monkeypatch.setattr(daemon.threads, "use", used.append)
    monkeypatch.setattr(daemon.warmup, "compile_kernels", lambda: None)
    monkeypatch.setattr(daemon.sys, "setswitchinterval", lambda _: None)
    monkeypatch.setattr(daemon, "HEAP", {})
    daemon._settle(3)
    assert used == [3]


@pytest.mark.parametrize(
    "words",
    [
        ["party", "--as", "p.key", "--store", "s", "--threads", "0"], ["generate", "--threads", "0"],
        ["generate", "--threads", "2", "--cluster", "c.toml", "--as", "a.key"],
    ],
)  # fmt: skip
def test_on_the_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([*words, *(["--json"] if words[0] == "generate" else [])]) == 2
    out, err = capsys.readouterr()
    assert "threads" in (json.loads(out)["error"]["message"] if out else err)
