"""Clients at the same time: what is compared with what, and a line of the table for each kind."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from benchmarks.clients import run, table
from puma.local.cluster import Trio
from puma.measure.bench import RandomParams, random_ids
from puma.models.presets import preset


def test_all_are_compared_with_one_alone() -> None:
    def ask(i: int) -> int:
        time.sleep(0.02)
        return i % 3

    found = run.compared(ask, 6, 2, [0, 1, 2], [os.getpid()])
    assert found["runs"] == 2 and found["alone_seconds"] >= 0.02
    assert found["ratio"] == pytest.approx(6 * found["alone_seconds"] / found["together_seconds"])
    with pytest.raises(RuntimeError, match="client 2 was answered 2, alone 5"):
        run.compared(ask, 6, 1, [0, 1, 5], [os.getpid()])
    assert run.processor_seconds([os.getpid()]) == pytest.approx(sum(os.times()[:2]), abs=0.1)


def test_the_tables() -> None:
    tokens: dict[str, Any] = {"title": "a model", "network": "wan", "clients": 16, "tokens": 32, "unit": "tokens"}
    tokens |= {"runs": 3, "alone_seconds": 4.0, "together_seconds": 8.0, "ratio": 8.0, "most": 0.0}
    texts = tokens | {"unit": "sentences", "network": "one machine", "ratio": 1.5, "most": 2.25}
    chat = {"before": 400, "first_seconds": 2.0, "second_seconds": 0.5, "ratio": 0.25}
    new, results = {"others": 15, "seconds": 0.4, "steps": 2}, {"cases": [tokens, texts], "chat": chat}
    text = table.clients(results | {"newcomer": new})
    assert "| a model, 32 new tokens | wan | 16 | 4.00 | 8.00 | 64.0 tokens | 8.0 |  | 3 |" in text
    assert "| a model, a text of 32 tokens | one machine | 16 | 4.00 | 8.00 | 2.0 sentences | 1.5 | 2.2 | 3 |" in text
    assert "| a newcomer beside 15 others | 0.40, 2 of their steps |" in text
    assert "| its second turn, 16 tokens more | 0.50, 0.25 of the first's |" in text


@pytest.mark.processes
def test_sessions_that_ask_at_the_same_time(processes: Trio) -> None:
    sizes = {"vocab_size": 60, "hidden_size": 24, "embedding_size": 24, "intermediate_size": 32}
    small = msgspec.structs.replace(preset("minilm-l6", 1), **sizes)
    processes.share(small, RandomParams(small))
    case = run.Case("sentences", "minilm-l6", 2, 5)
    with ExitStack() as stack:
        sessions = [stack.enter_context(run._session(processes)) for _ in range(2)]
        found = run.of_sessions(case, sessions, random_ids(small, [5, 5]), 1, processes.pids, {})
    assert found["unit"] == "sentences" and found["network"] == "one machine" and found["ratio"] > 0
    assert found["cpu_seconds_each"] >= 0 and found["clients"] == 2


@pytest.mark.slow
@pytest.mark.processes
def test_the_whole_part_in_short() -> None:
    found = run.clients(1, True, lambda _: None)
    assert [case["clients"] for case in found["cases"]] == [3, 2, 3] and found["newcomer"]["others"] == 2
    assert found["chat"]["before"] == 40 and "| its second turn" in table.clients(found)
