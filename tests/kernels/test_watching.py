"""A thread looks at a word until it changes, or until it has looked often enough; the pool works either way."""

from __future__ import annotations

import threading
from array import array

import pytest

from puma import pool
from puma.kernels.startup import watching


def test_a_word_that_changes_and_one_that_does_not() -> None:
    told, word = array("q", [3]), array("q", [7])
    tell, place = told.buffer_info()[0], word.buffer_info()[0]
    assert not watching.watch(0, place, 7) and told[0] == 3
    assert watching.watch(tell, place, 6) and told[0] == 4
    assert not watching.watch(tell, place, 7) and told[0] == 5 and word[0] == 7


def test_a_word_that_another_thread_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOKS", 1 << 40)
    word, found = array("q", [0]), list[bool]()
    thread = threading.Thread(target=lambda: found.append(watching.watch(0, word.buffer_info()[0], 0)), daemon=True)
    thread.start()
    word[0] = 1  # which needs Python's lock
    thread.join(20)
    assert found == [True]


def test_threads_that_look_before_they_sleep() -> None:
    before = pool._watch
    pool.use(3)
    pool.watching(watching.watch)
    try:
        done = [0] * 300
        for _ in range(50):
            pool.split(lambda low, high: done.__setitem__(slice(low, high), [1] * (high - low)), 300, 1)
            assert sum(done) == 300
            done[:] = [0] * 300
    finally:
        pool.watching(before)
        pool.use(1)
