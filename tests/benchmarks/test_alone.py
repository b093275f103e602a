"""One party alone on a tape gives what it gave among three, to the bit, whatever the number of threads."""

from __future__ import annotations

import multiprocessing
import os

import msgspec
import pytest
import torch

from benchmarks import page
from benchmarks.alone import __main__ as command
from benchmarks.alone import cores
from benchmarks.alone.parties import Alone
from puma.kernels.startup import threads
from puma.measure.bench import RandomParams
from puma.models.presets import preset
from puma.mpc import seeded
from puma.wire.request_shapes import shaped

FORKED = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
SIZES = {"vocab_size": 60, "hidden_size": 24, "embedding_size": 24, "intermediate_size": 32}


def test_a_party_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeded, "BLOCK_BYTES", 600)
    monkeypatch.setattr(seeded, "THREAD_BYTES", 1)
    monkeypatch.setattr("benchmarks.alone.parties.KEEP_MASKS_BELOW", 0)
    config = msgspec.structs.replace(preset("minilm-l6", 1), **SIZES)
    alone = Alone(config, RandomParams(config), shaped(config, 9, None))
    alone.record()
    recorded = alone.results
    assert len(recorded[1]) == len(recorded[2]) > 0
    for rank in range(3):
        for count in (1, 3):
            threads.use(count)
            took = alone.play(rank)
            threads.use(1)
            assert took["seconds"] > 0
            assert all(torch.equal(*pair) for pair in zip(recorded[rank], alone.results[rank], strict=True)), count


def test_the_serial_part() -> None:
    assert command.serial(2.0, 2) == 0 and command.serial(1.0, 2) == 1
    assert command.serial(1.7, 2) == pytest.approx(0.176, abs=0.001)
    assert command.serial(8 / (1 + 7 * 0.1), 8) == pytest.approx(0.1)


@FORKED
def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1]

    class Steady:
        def play(self, rank: int) -> dict[str, float]:
            spent = 8.0 / (1 + (now[0] - 1) * 0.8)
            return {"seconds": spent, "cpu_seconds": 8.0, "own_seconds": spent}

    monkeypatch.setattr(command.threads, "use", lambda count: now.__setitem__(0, count))
    line = {"title": "a case"} | command.party(Steady(), 0, [1, 2], 2)  # type: ignore[arg-type]
    assert line["ratio"] == pytest.approx(1.8) and line["serial"] == pytest.approx(1 / 9)
    told = page.threads([line, {"title": "a kernel", "allowed": 1.5}])
    assert "| a case | P0 | 8.00 | 4.44 | 1.80 | 2.00 | 1.80 | 11.1 % |" in told and "| a kernel | 1.50 |" in told
    assert "allowed x2.00" in command.told(line)


@FORKED
def test_what_cores_allow_is_by_processes_at_once() -> None:
    both = multiprocessing.get_context("fork").Barrier(2)

    def work() -> float:
        both.wait(20)
        return 3.0

    assert cores.at_once(work, 2, 2) == 3.0
    assert cores.allowed(lambda: 3.0, 2, 1) == 2.0
    with pytest.raises(EOFError):
        cores.at_once(lambda: os._exit(1), 1, 1)


def test_kernels_that_cores_are_tried_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "SECONDS", 0.0)
    monkeypatch.setattr(cores, "LARGE", 1 << 10)
    monkeypatch.setattr(cores, "at_once", lambda work, count, runs: work() * count / work())
    assert all(times > 0 for times in cores.kernels_allowed(2, 1).values())
