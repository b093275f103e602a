"""The watch that all tests stand under sees what it is for: it is tried on streams that are read twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from puma.crypto.prg import PairKey, fresh_secret
from puma.local.cluster import LocalCluster, Trio
from puma.mpc.party import FIRST, Party
from puma.wire.input_share import Seeds
from puma.wire.prompt import share_input
from tests.threads import Threads
from tests.trio import parties, trio
from tests.watching.positions import REPORT, watching

# What tests call from their own text is their own affair, so these go through the program's functions.
TEXT = [3, 1, 4]


def test_a_prompt_under_fresh_seeds_reads_nothing_twice() -> None:
    with watching() as seen:
        share_input(TEXT, 9)
        share_input(TEXT, 9, flags=[0, 1, 0])
    assert seen.draws >= 12 and not seen.repeats


def test_two_prompts_under_the_same_seeds_are_noticed() -> None:
    seeds = Seeds.fresh()
    with watching() as seen:
        share_input(TEXT, 9, seeds)
        share_input(TEXT, 9, seeds)
    assert len(seen.repeats) == 5 and "an outsider reads bytes 0 to" in seen.repeats[0]


def test_a_party_that_draws_from_the_start_again_is_noticed() -> None:
    """Two requests under one label, as if the sessions' requests were not numbered."""

    def twice(party: Party) -> None:
        for _ in range(2):
            with party.stage("request"):
                party.own_words("mask", (4,))

    with watching() as seen:
        parties(twice)
    assert len(seen.repeats) == 4 and all("'mask' a second time" in repeat for repeat in seen.repeats)


def test_two_sessions_under_one_fresh_secret_are_noticed() -> None:
    secret = {(0, 1): fresh_secret()}
    with watching() as seen:
        for _ in range(2):
            parties(lambda party: party.words(FIRST, "mask", (4,)), trio(secret))
    assert sorted(repeat[:2] for repeat in seen.repeats) == ["P0", "P1"]


def test_a_reader_says_what_it_reads() -> None:
    """The owner masks a parameter bit by bit; a second one under the same purpose would begin again."""
    key = PairKey(fresh_secret())
    stream = key.stream("weight w")
    with watching() as seen:
        for start in (0, 8, 16, 8):
            reader = stream.reader(start)
            reader.into(torch.empty(8, dtype=torch.uint8))
    assert not seen.draws  # from a test's own text
    with watching() as seen:
        for start in (0, 8, 16, 8):
            _elsewhere(stream, start)
    assert seen.draws == 4 and len(seen.repeats) == 1


def _elsewhere(stream: object, start: int) -> None:
    """The same from text that is no test's."""
    code = compile("stream.reader(start).into(buffer)", "elsewhere.py", "exec")
    exec(code, {"stream": stream, "start": start, "buffer": torch.empty(8, dtype=torch.uint8)})


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_sessions_are_watched(name: str, checkpoints: dict[str, Path]) -> None:
    with watching() as seen, Threads() as threads:
        cluster = LocalCluster(checkpoints[name], trio=threads)  # type: ignore[arg-type]
        before = seen.draws
        cluster.generate("the cat", 2) if name == "llama" else cluster.encode("the cat")
    assert seen.draws > before + 50 and before > 10 and not seen.repeats


@pytest.mark.processes
def test_processes_of_parties_are_watched(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request of this trio draws from the masks of the one before: its processes say so, on their own."""
    report = tmp_path / "repeats"
    monkeypatch.setenv(REPORT, str(report))
    with Trio(program=(str(Path(__file__).parent / "forgetful.py"),)) as trio_:
        cluster = LocalCluster(checkpoints["bert"], trio=trio_)
        for _ in range(2):
            cluster.encode("the cat")
    found = report.read_text()
    assert all(f"P{rank} reads bytes 0 to" in found for rank in range(3))
