"""Parties are forked from one process that has loaded their program, whatever becomes of it."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from puma.errors import PumaError
from puma.local import nursery
from tests.watching import waiting
from tests.watching.started import alive, gone

Start = Callable[[], nursery.PartyProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts parties that nobody tells who they are; all end at last."""
    started: list[nursery.PartyProcess] = []

    def one() -> nursery.PartyProcess:
        started.append(nursery.party(waiting.PROGRAM))
        return started[-1]

    yield one
    for each in started:
        each.kill()
        assert each.gone(20)
        for pipe in each.pipes():
            pipe.close()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_one_process_forks_all_of_them(start: Start) -> None:
    first, second = start(), start()
    assert first.pid != second.pid and parent(first.pid) == parent(second.pid) != os.getpid()
    assert not first.gone()
    first.stdin.close()  # the launcher is gone, as far as it can see
    assert first.gone(20) and alive(second.pid)
    first.kill()  # harmless


def test_a_party_holds_no_pipe_of_another(start: Start) -> None:
    first, second = start(), start()
    second.kill()
    assert second.gone(20) and not second.stdout.read(1), "nobody else can write there"
    assert alive(first.pid)


def test_another_takes_its_place(start: Start) -> None:
    first = start()
    before = parent(first.pid)
    os.kill(before, signal.SIGKILL)
    assert gone([before]) and alive(first.pid), "a party outlives it"
    assert parent(start().pid) != before


def test_libraries_are_loaded_under_the_settings_of_now(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    before, was = parent(start().pid), os.environ.get("PUMA_ANYTHING")
    monkeypatch.setenv("HOMEWARD", "1")  # nothing that a library reads
    assert parent(start().pid) == before
    monkeypatch.setenv("PUMA_ANYTHING", "1")
    assert was is None and parent(start().pid) != before


def test_a_program_that_ends_at_once_is_told(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("")
    with pytest.raises(PumaError, match="died while starting"):
        nursery.party([str(program)])


def test_a_program_with_many_open_files(start: Start) -> None:
    """The descriptor that stands for a party may have any number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = 1500
    if hard != resource.RLIM_INFINITY and hard <= number:
        pytest.skip(f"{hard} files are the most here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number + 1), hard))
    try:
        party = start()
        before, party._handle = party._handle, os.dup2(party._handle, number)
        os.close(before)
        assert not party.gone(0.01)
        party.kill()
        assert party.gone(20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
