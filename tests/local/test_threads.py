"""Threads that ask one local cluster at a time: each in a session of its own, and computed together."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from puma.errors import PumaError
from puma.local.cluster import LocalCluster, Trio
from puma.local.sessions import MOST, Sessions
from puma.reference.plain_model import PlainModel
from tests.models import tiny


def session(here: bool = True) -> Any:
    return SimpleNamespace(over=False, turns=SimpleNamespace(here=here), close=lambda: None)


def elsewhere(work: Any) -> Any:
    """The result in another thread, which then ends."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(10)


def test_one_thread_has_the_first_session_and_several_their_own() -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(session())
        return made[-1]

    sessions = Sessions(session(), make)
    assert sessions.mine() is sessions.first is sessions.mine() and not made
    assert sessions.present() is sessions.first and elsewhere(sessions.present) is None
    held, done = threading.Event(), threading.Event()

    def hold() -> bool:
        found = sessions.mine()
        held.set()
        return done.wait(10) and sessions.mine() is found is made[0]

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(hold)
        assert held.wait(10)
        assert sessions.mine() is made[1] is sessions.mine(), "from now on the first thread, too"
        done.set()
        assert other.result(10)
    assert elsewhere(sessions.mine) is made[0], "whose thread is gone serves the next one"
    assert sessions.all() == [sessions.first, *made] and len(made) == 2
    made[0].over = made[1].over = True
    assert sessions.mine() is made[2]


def test_there_are_no_more_than_a_process_bears() -> None:
    sessions = Sessions(session(), session)
    sessions.mine()
    gate = threading.Barrier(MOST + 3)

    def hold() -> Any:
        found = sessions.mine()
        gate.wait(10)
        return found

    with ThreadPoolExecutor(MOST + 3) as pool:
        found = [each.result(20) for each in [pool.submit(hold) for _ in range(MOST + 3)]]
    assert sum(each is sessions.first for each in found) == 3
    gone = Sessions(session(here=False), session)
    assert gone.mine() is elsewhere(gone.mine) is gone.first


@pytest.mark.processes
def test_threads_get_their_own_answers(processes: Trio, tmp_path: Path) -> None:
    clear = PlainModel(tiny.llama(tmp_path, num_hidden_layers=1))
    cluster = LocalCluster(clear, trio=processes)
    texts = ["the cat", "a dog", "the dog sat", "it"]
    wanted = [clear.greedy(clear.prompt_ids(text, 5), 5) for text in texts]
    first = cluster.generate(texts[0], 5)
    assert first.token_ids == wanted[0]

    def ask(i: int) -> Any:
        if i == 3:
            return list(cluster.stream(texts[i], 5)), cluster.cost, cluster.session
        return cluster.generate(texts[i], 5).token_ids, cluster.cost, cluster.session

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
        assert [tokens for tokens, _, _ in found] == wanted
        cluster.out_of_range = "warn"
        assert all(each.out_of_range == "warn" for _, _, each in found)
    own = cluster.session
    assert own is not processes.session and cluster.generate(texts[1], 5).token_ids == wanted[1]
    own.links[1].fail("cut")
    with pytest.raises(PumaError):
        cluster.generate(texts[1], 5)
    assert cluster.session is not own and cluster.generate(texts[1], 5).token_ids == wanted[1]
    cluster.close()
    assert processes.session.selftest().shape == (6,)


@pytest.mark.slow
@pytest.mark.processes
def test_a_party_that_dies_is_told_to_all_threads(tmp_path: Path) -> None:
    with LocalCluster(PlainModel(tiny.llama(tmp_path, num_hidden_layers=1, max_position_embeddings=256))) as cluster:
        cluster.generate("the cat", 1)
        errors: list[PumaError] = []

        def ask(_: int) -> None:
            try:
                cluster.generate("the cat", 1)
                begun.wait(20)
                cluster.generate("the cat", 200)
            except PumaError as error:
                errors.append(error)

        begun = threading.Barrier(4)
        with ThreadPoolExecutor(3) as pool:
            work = [pool.submit(ask, i) for i in range(3)]
            begun.wait(20)
            cluster._trio._processes[1].kill()
            for each in work:
                each.result(15)
        assert len(errors) == 3
