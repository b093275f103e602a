"""Daemons for long: killed at any moment, again and again, and asked by many at once without growing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from puma.config import Policy
from puma.errors import PumaError
from puma.reference.plain_model import PlainModel
from tests.live import Live, patiently
from tests.party.steps.test_channel import until

BUSY = 400.0  # seconds in which daemons may start where much else runs
pytestmark = [pytest.mark.slow, pytest.mark.processes]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("while_", ["generating", "uploading"])
def test_kills_at_any_moment(while_: str, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """No wait beyond ten seconds, no broken store, and the next session works. PUMA_SOAK says how often."""
    times, waits = int(os.environ.get("PUMA_SOAK", "3")), list[float]()

    def soak(work: Callable[[], object], live: Live, i: int) -> None:
        rank, moment, killed = i % 3, 0.05 + (i * 0.37) % 1.3, list[float]()

        def kill() -> None:
            killed.append(time.monotonic())
            live.kill(rank)

        timer = threading.Timer(moment, kill)
        timer.start()
        try:
            while True:
                work()
        except PumaError:
            ended = time.monotonic()
        timer.join()
        waits.append(ended - killed[0])
        assert 0 < waits[-1] < 10
        live.start(rank)
        live.healthy()

    with Live(tmp_path) as live:
        live.share(checkpoints["llama"], "tiny")
        for i in range(times):
            if while_ == "generating":
                with patiently(live, "tiny") as cluster:
                    soak(lambda c=cluster: c.generate("the cat", 8), live, i)
            else:
                versions = iter(range(10**6))
                soak(lambda i=i, v=versions: live.share(checkpoints["gpt2"], "new", version=f"{i}.{next(v)}"), live, i)
                live.share(checkpoints["gpt2"], "new", version=f"{i}.last")
                patiently(live, "new", accept_changes=True).close()  # it was shared anew since the kill before
            with patiently(live, "tiny") as cluster:
                assert len(cluster.generate("the cat", 2).token_ids) == 2
            live.settled()
    print(f"\n{while_}: {times} kills, an error after {max(waits):.2f} s at the latest")


@pytest.mark.timeout(7200)
def test_kills_under_sixteen_clients(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """All are told within ten seconds, whatever they wait for, and the next request is answered as before. The daemons
    watch what they draw: a party that survives and meets the others anew reads no mask twice. PUMA_SOAK says how
    often."""
    times, clients, waits = int(os.environ.get("PUMA_SOAK", "3")), 16, list[float]()
    plain = PlainModel(checkpoints["llama"])
    wanted = plain.greedy(plain.prompt_ids("the cat", 6), 6)

    def asks(cluster: Any, told: list[tuple[float, str]]) -> None:
        try:
            while True:
                assert cluster.generate("the cat", 6).token_ids == wanted
        except PumaError as error:
            told.append((time.monotonic(), type(error).__name__))

    with Live(tmp_path, Policy(max_sessions=20), "--sessions-by-key", "20", start=False) as live:
        for rank in range(3):
            live.start(rank)
        live.healthy(BUSY)
        live.share(checkpoints["llama"], "tiny")
        for i in range(times):
            rank, told = (i * 7 + i // 3) % 3, list[tuple[float, str]]()
            with ExitStack() as opened:
                sessions = [opened.enter_context(patiently(live, "tiny")) for _ in range(clients)]
                threads = [threading.Thread(target=asks, args=(each, told)) for each in sessions]
                for thread in threads:
                    thread.start()
                until(lambda: live.text(1)["puma_requests_active"] > clients // 2, 60)
                time.sleep((i * 0.37) % 1.1)
                live.kill(rank)
                killed = time.monotonic()
                for thread in threads:
                    thread.join(30)
            assert len(told) == clients, f"{clients - len(told)} of {clients} heard nothing of P{rank}'s end"
            waits.append(max(when for when, _ in told) - killed)
            assert waits[-1] < 10, told
            live.start(rank)
            live.healthy(BUSY)
            with patiently(live, "tiny") as cluster:
                assert cluster.generate("the cat", 6).token_ids == wanted
            live.settled()
    print(f"\n{times} kills under {clients} clients, all told after {max(waits):.2f} s at the latest")


@pytest.mark.timeout(900)
def test_many_clients_take_no_more_memory_with_time(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """Twenty at a time. PUMA_SOAK_SECONDS says for how long."""
    seconds = float(os.environ.get("PUMA_SOAK_SECONDS", "60"))
    with Live(tmp_path, Policy(max_sessions=20), "--sessions-by-key", "20", bare=True) as live:
        live.share(checkpoints["llama"], "tiny")
        errors, served = list[BaseException](), list[int]()
        end = time.monotonic() + seconds

        def client() -> None:
            try:
                while time.monotonic() < end:
                    with live.connect("tiny") as cluster:
                        cluster.generate("the cat", 2)
                    served.append(1)
            except PumaError as error:
                errors.append(error)

        threads = [threading.Thread(target=client) for _ in range(20)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 2)
        middle = [live.text(rank)["puma_resident_bytes"] for rank in range(3)]
        for thread in threads:
            thread.join(seconds + 60)
        assert not errors
        live.settled()
        last = [live.text(rank)["puma_resident_bytes"] for rank in range(3)]
        assert all(b < 1.2 * a + (32 << 20) for a, b in zip(middle, last, strict=True)), (middle, last)
        mib = [[round(size / (1 << 20)) for size in sizes] for sizes in (middle, last)]
        print(f"\n{len(served)} sessions of 20 clients in {seconds:.0f} s; MiB half-way {mib[0]}, at the end {mib[1]}")


@pytest.mark.timeout(3600)
def test_clients_that_come_go_stall_and_cancel(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """PUMA_SOAK_CLIENTS at a time for PUMA_SOAK_SECONDS: every answer is the one that is given alone, nothing is left
    behind, and memory does not grow."""
    seconds, clients = (float(os.environ.get(f"PUMA_SOAK_{name}", "60")) for name in ("SECONDS", "CLIENTS"))
    clients = min(int(clients), 32)
    plain = PlainModel(checkpoints["llama"])
    texts = ["the cat", "a dog", "the dog sat", "it"]
    answers = [plain.greedy(plain.prompt_ids(text, 12), 12) for text in texts]
    errors, served, left = list[BaseException](), list[int](), list[int]()
    end = time.monotonic() + seconds
    most = clients + 4

    def asked(cluster: Any, number: int) -> None:
        text, answer = texts[number % 4], answers[number % 4]
        if number % 5 == 1:  # leaves in the middle
            stream = cluster.stream(text, 12)
            assert [next(stream), next(stream)] == answer[:2]
            stream.close()
            left.append(1)
        elif number % 5 == 2:  # stalls, and goes on
            stream = cluster.session.continued([plain.prompt_ids(text, 12)], 6, paced=True)
            first = next(stream)
            time.sleep(number % 3)
            assert [*first, *(new for (new,) in stream)] == answer[:6]
        elif number % 7 == 3:  # dies
            next(cluster.stream(text, 12))
            for link in cluster.session.links:
                link.fail("the client died")
            left.append(1)
        else:
            tokens = 1 + number % 12
            assert cluster.generate(text, tokens).token_ids == answer[:tokens]

    def client(number: int) -> None:
        try:
            while time.monotonic() < end:
                with live.connect("tiny") as cluster:
                    for _ in range(1 + number % 3):
                        asked(cluster, number)
                        served.append(1)
                        number += 7
                        if cluster.session.over or any(link.lost for link in cluster.session.links):
                            break
        except BaseException as error:
            errors.append(error)

    with Live(tmp_path, Policy(max_sessions=most), "--sessions-by-key", str(most), bare=True) as live:
        live.share(checkpoints["llama"], "tiny")
        threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 2)
        middle = [live.text(rank)["puma_resident_bytes"] for rank in range(3)]
        for thread in threads:
            thread.join(seconds + 60)
        assert not errors, errors[0]
        live.settled()
        last = [live.text(rank) for rank in range(3)]
        assert all(each["puma_requests_active"] == 0 for each in last), "nothing of those that are gone is left"
        sizes = [each["puma_resident_bytes"] for each in last]
        assert all(b < 1.2 * a + (32 << 20) for a, b in zip(middle, sizes, strict=True)), (middle, sizes)
        steps = last[1]["puma_steps"]
    print(
        f"\n{len(served)} requests, {len(left)} of them left, in {steps:.0f} steps; MiB {[int(s) >> 20 for s in sizes]}"
    )
