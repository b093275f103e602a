"""Three processes live as long as the cluster that started them: whatever becomes of it, of threads, of forks."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from puma import LocalCluster
from puma.client.session import Session
from puma.errors import PeerLost, PumaError, UsageError
from puma.local.cluster import Trio
from puma.net.tcp import Met
from puma.party.ending import failed
from puma.party.evidence.records import Records
from puma.party.launched import process
from puma.party.launched.process import Guests
from puma.reference.plain_model import PlainModel
from puma.wire.launch import Start
from tests.models import tiny
from tests.watching.started import alive, gone

pytestmark = pytest.mark.processes
SECONDS = 30.0


def both(folder: Path) -> tuple[list[int], LocalCluster]:
    """The processes of a cluster that nobody knows after this, and a second one. In a frame of its own, because a frame
    that somebody looks at keeps what its names once meant.
    """
    first = LocalCluster(folder)
    stream = first.stream("the cat", 20)
    next(stream)
    second = LocalCluster(folder)
    assert all(map(alive, first.pids + second.pids))
    return first.pids, second


def test_no_session_is_waited_for_with_a_party_that_has_ended() -> None:
    """Parties are awaited while they start, and not afterwards: threads that want a session of their own hear of it."""
    trio = Trio()
    try:
        os.kill(trio.pids[1], signal.SIGKILL)
        assert gone(trio.pids[1:2], SECONDS)
        began = time.monotonic()
        with pytest.raises(PumaError):
            trio.another()
        assert time.monotonic() - began < SECONDS
    finally:
        trio.kill()


def test_a_further_session_may_be_silent_as_long_as_the_first() -> None:
    """Else a gateway that nobody asks for ten minutes would find that its parties have let go of it."""
    seen, served = list[float](), list[Any]()
    link: Any = SimpleNamespace(set_timeout=seen.append, close=lambda: None)
    nobody: Any = None
    guests = Guests(Start(1, b"", b"", b""), nobody, nobody, lambda *guest: served.append(guest), Records())
    guests._guest(Met(link, "client", 0, b"", session=b"s" * 16))
    assert seen == [process.PATIENCE] and len(served) == 1


def test_why_something_ended_is_shown_where_errors_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = PeerLost("P2 is gone", "look at its log")
    assert failed(1, error).kind == "PeerLost" and not capsys.readouterr().err
    monkeypatch.setenv("PUMA_DEBUG", "1")
    failed(1, error)
    assert "P1: PeerLost: P2 is gone" in capsys.readouterr().err


def test_a_cluster_that_is_forgotten_leaves_no_process(checkpoints: dict[str, Path]) -> None:
    """Nor one whose stream was left open; a second one beside it, as in a notebook that is run again, lives on."""
    pids, second = both(checkpoints["llama"])
    others = second.pids
    gc.collect()
    assert gone(pids, SECONDS)
    assert all(map(alive, others)) and len(second.generate("the cat", 1).token_ids) == 1
    second.close()
    assert gone(others, SECONDS)


def test_a_cluster_that_fails_to_begin_leaves_no_process(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    begin = Session._begin

    def failing(session: Session, *results: Any) -> None:
        raise KeyboardInterrupt

    spawn = Trio._start

    def noting(trio: Trio, *progress: Any) -> None:
        spawn(trio, *progress)
        started.extend(trio.pids)

    monkeypatch.setattr(Trio, "_start", noting)
    monkeypatch.setattr(Session, "_begin", failing)
    with pytest.raises(KeyboardInterrupt):
        LocalCluster(checkpoints["llama"])
    monkeypatch.setattr(Session, "_begin", begin)
    assert len(started) == 3 and gone(started, SECONDS)


LEAVING = """
import json, sys
from puma.local.cluster import Trio
trio = Trio()
print(json.dumps(trio.pids), flush=True)
if sys.argv[1] == "error":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("how", ["error", pytest.param("end", marks=pytest.mark.slow)])
def test_an_interpreter_that_ends_leaves_no_process(how: str) -> None:
    left = subprocess.run([sys.executable, "-c", LEAVING, how], capture_output=True, text=True, timeout=60, check=False)
    assert left.returncode == (3 if how == "error" else 0), left.stderr
    assert gone(json.loads(left.stdout), SECONDS) and not left.stderr


FORKING = """
import json, os, sys, time
from puma.local.cluster import Trio
trio = Trio()
print(json.dumps(trio.pids), flush=True)
if os.fork() == 0:
    os.close(1)
    time.sleep(60)
os.kill(os.getpid(), 9)
"""


def test_a_forked_process_does_not_keep_parties_of_a_dead_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKING], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as dead:
        assert dead.stdout is not None
        pids = json.loads(dead.stdout.readline())
        try:
            assert dead.wait(30) == -signal.SIGKILL
            assert gone(pids, SECONDS)
        finally:
            os.killpg(dead.pid, signal.SIGKILL)


def in_a_fork(cluster: Any, found: Any) -> None:
    """What a child can do with its parent's cluster: nothing, and it may leave in any way."""
    try:
        cluster.generate("the cat", 1)
    except UsageError as error:
        found.send(str(error))
    with cluster:
        pass
    cluster.close()
    cluster._trio.kill()
    raise SystemExit(0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_children_neither_use_nor_end_their_parents_cluster(checkpoints: dict[str, Path]) -> None:
    clear = PlainModel(checkpoints["llama"])
    with LocalCluster(clear) as cluster:
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        child = multiprocessing.get_context("fork").Process(target=in_a_fork, args=(cluster, theirs))
        child.start()
        assert "forked" in ours.recv()
        child.join(20)
        assert child.exitcode == 0
        other = os.fork()
        if other == 0:
            try:
                cluster._trio._end()
                sys.exit(0)
            finally:
                os._exit(0)
        os.waitpid(other, 0)
        assert all(map(alive, cluster.pids))
        assert cluster.generate("the cat", 2).token_ids == clear.greedy(clear.prompt_ids("the cat", 2), 2)


def test_inside_a_running_loop(processes: Trio, tmp_path: Path) -> None:
    """A call blocks its loop and is right; in threads, calls wait for each other and the loop goes on."""
    clear = PlainModel(tiny.llama(tmp_path, num_hidden_layers=1))
    cluster = LocalCluster(clear, trio=processes)
    wanted = clear.greedy(clear.prompt_ids("the cat", 2), 2)

    async def ask() -> list[list[int]]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        first = cluster.generate("the cat", 2).token_ids
        ticking = asyncio.create_task(tick())
        others = await asyncio.gather(*(asyncio.to_thread(cluster.generate, "the cat", 2) for _ in range(3)))
        ticking.cancel()
        assert ticks > 10
        return [first, *(answer.token_ids for answer in others)]

    assert asyncio.run(ask()) == [wanted] * 4
