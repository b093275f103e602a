"""`--open-weights`: the same commands, the same answers, less of everything; and where it makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("lent")]


def test_answers_are_those_of_hidden_weights(puma: Run, checkpoints: dict[str, Path]) -> None:
    asked = ("generate", checkpoints["llama"], "the cat sat", "--tokens", 3, "--compare", "--json")
    hidden, opened = puma(*asked).json, puma(*asked, "--open-weights").json
    assert opened["compare"]["agree"] and opened["token_ids"] == hidden["token_ids"]
    assert opened["rounds"] < hidden["rounds"] and opened["bytes"]["total"] < hidden["bytes"]["total"]
    asked = ("encode", checkpoints["classifier"], "the cat sat", "--json")
    hidden, opened = puma(*asked).json, puma(*asked, "--open-weights").json
    assert opened["logits"] == pytest.approx(hidden["logits"], abs=0.01) and opened["rounds"] <= hidden["rounds"]


def test_bench_pays_what_cost_says_of_open_weights(puma: Run, checkpoints: dict[str, Path]) -> None:
    asked = (checkpoints["llama"], "--prompt", 4, "--tokens", 3, "--open-weights", "--json")
    found, cost = puma("bench", *asked, "--no-fitted").json, puma("cost", *asked).json
    assert found["weights"] == cost["weights"] == "open" and found["max_abs_error"] < 0.01
    assert {key: found[key] for key in ("rounds", "bytes")} == {key: cost[key] for key in ("rounds", "bytes")}
    hidden = puma("cost", *[word for word in asked if word != "--open-weights"]).json
    assert (
        cost["disk"][1] * 3 <= hidden["disk"][1] and cost["networks"][0]["seconds"] < hidden["networks"][0]["seconds"]
    )


def test_a_clusters_owner_has_decided_that(puma: Run, tmp_path: Path) -> None:
    ran = puma("generate", "--cluster", tmp_path / "c.toml", "--as", "x.key", "hi", "--open-weights")
    assert ran.code == 2 and "whether a cluster's model is open, its card says" in ran.out + ran.err
    ran = puma("party", "--as", "x.key", "--store", tmp_path, "--open-weights", tmp_path / "nowhere")
    assert ran.code == 2 and "there is no checkpoint" in ran.out + ran.err
