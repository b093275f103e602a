"""The one command: its options, and a request over a network beside its prediction."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks import __main__ as command
from benchmarks import network_run, page, record, sentences
from benchmarks.receipts import run as receipts
from puma.local.cluster import Trio
from puma.measure.bench import RandomParams
from puma.measure.rates import Speed, Work
from puma.models.presets import preset

RATES = Work(1e-3, 1e-9, 1e-9, 1e-10)


@pytest.mark.processes
def test_a_request_over_a_network(checkpoints: dict[str, Path]) -> None:
    found = network_run.measure((str(checkpoints["gpt2"]), 3, 1), "lan", 1, Speed((RATES, RATES, RATES), 1.1, 2))
    least = found["rounds"] * found["rtt"] / 2
    assert found["seconds"] > least and found["predicted"] > least
    assert found["relay_cpu_seconds"] > 0 and found["network"] == "lan"
    assert "| lan |" in page.networks([found])


def test_parts_are_chosen_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def batch(runs: int, quick: bool) -> list[dict[str, object]]:
        return [{"batch": runs, "error": "nothing measured" if quick else ""}]

    monkeypatch.setitem(command.PARTS, "batch", batch)
    monkeypatch.setattr(
        sys, "argv", ["benchmarks", "--only", "batch", "--runs", "7", "--quick", "--out", str(tmp_path)]
    )
    command.main()
    found = record.read(tmp_path, "batch")
    assert found and found["results"] == [{"batch": 1, "error": "nothing measured"}]
    assert found["about"]["command"].startswith("python -m benchmarks --only batch")
    assert "| 1 | not measured: nothing measured |" in (tmp_path / "benchmarks.md").read_text()


def test_unknown_parts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "moon"])
    with pytest.raises(SystemExit):
        command.main()
    assert "there is no part moon" in capsys.readouterr().err
    assert set(command.PARTS) | {"spu", "models_avx2"} == set(page.PARTS)


@pytest.mark.processes
def test_hash_chains_of_three_parties() -> None:
    (found,) = receipts.receipts(1, True, lambda _: None)
    assert 0 < found["share"] < 0.5 and found["share"] == found["hash_seconds"] / found["cpu_seconds"]
    assert found["frames"] > 3 * 50 and found["bytes"] > 1e6
    assert "| MiniLM, one layer, 8 tokens |" in page.receipts([found])


@pytest.mark.processes
def test_sentences_a_second(processes: Trio) -> None:
    sizes = {"vocab_size": 60, "hidden_size": 24, "embedding_size": 24, "intermediate_size": 32}
    small = msgspec.structs.replace(preset("minilm-l6", 1), **sizes)
    found = sentences.measured(processes, small, RandomParams(small), 3, 5, 2)
    assert found["requests"] == 1 and found["runs"] == 2 and len(found["all_seconds"]) == 2
    assert found["per_second"] == pytest.approx(3 / found["seconds"]) and found["bytes_each"] > 0
    asked = {"model": "minilm-l6", "network": "loopback"}
    *_, row = page.sentences([asked | found, asked | found | {"network": "wan", "per_second": 0.25}]).splitlines()
    assert row.startswith("| sentences, MiniLM-L6 | 5 | 3 | ") and "| 0.25 |" in row
