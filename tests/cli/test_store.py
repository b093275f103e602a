"""`puma prepare` and `puma store`, and what the other commands say about a store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from puma.local import cluster as local
from puma.local import inventory as kept
from puma.measure import bench
from tests.cli.conftest import Run
from tests.models import tiny
from tests.threads import Threads

pytestmark = pytest.mark.usefixtures("threads")
WORDS = "the cat"
LENGTH = 3  # of it, in tokens


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands start parties in threads."""
    for room in (local, bench):
        monkeypatch.setattr(
            room,
            "Trio",
            lambda _=None, store=None, **kind: Threads(store and Path(store), **kind),
        )


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("one")
    return lambda kind: getattr(tiny, kind)(folder / kind, num_hidden_layers=1)


def test_generate_finds_what_was_prepared(puma: Run, memory: Path, one_layer: Callable[[str], Path]) -> None:
    model, store = one_layer("llama"), ("--store", memory)
    shape = ("--prompt", LENGTH, "--tokens", 1)
    found = puma("prepare", model, *shape, "--count", 2, *store, "--json").json
    assert list(found) == ["model", "prompt", "tokens", "batch", "count", "store", "seconds", "bytes", "preprocessing"]
    assert (found["prompt"], found["tokens"], found["count"]) == (LENGTH, 1, 2)
    assert found["seconds"] > 0 and found["bytes"] > 0 and min(found["preprocessing"]) > 0
    kept = puma("store", *store, "--json").json
    assert (kept["store"], kept["prepared"]) == (str(memory), 2)
    assert kept["preprocessing"] == [2 * size for size in found["preprocessing"]]
    (sizes,) = kept["models"].values()
    assert sizes[0] < sizes[1] and abs(sizes[1] - sizes[2]) < 1000
    answer = puma("generate", model, WORDS, "--tokens", 1, *store, "--json").json
    assert answer["prepared"] is True and answer["bytes"]["offline"] == 0
    assert answer["ahead"]["bytes"] * 2 == found["bytes"] and answer["ahead"]["seconds"] > 0
    out = puma("generate", model, WORDS, "--tokens", 1, *store).out
    assert ", prepared in " in out and " offline" not in out and "nothing was prepared" not in out
    out = puma("generate", model, WORDS, "--tokens", 1, *store).out
    assert f"nothing was prepared for {LENGTH} tokens in and 1 out" in out and " offline" in out
    usual = puma("generate", model, WORDS, "--tokens", 1, *store, "--json").json
    assert usual["prepared"] is False and "ahead" not in usual and usual["token_ids"] == answer["token_ids"]


def test_encode_finds_what_was_prepared(puma: Run, memory: Path, one_layer: Callable[[str], Path]) -> None:
    model = one_layer("bert")
    out = puma("prepare", model, "--prompt", LENGTH + 1, "--store", memory).out
    first, second, third = out.splitlines()
    assert first.startswith("1 prepared for bert, 4 tokens in, 0 out: ")
    assert second.startswith("P0, P1 and P2 keep ") and third == f"to use one: puma encode with --store {memory}"
    ran = puma("encode", model, WORDS, "--store", memory, "--json")
    found = json.loads(ran.out)
    assert ran.err.startswith("Each vector is the mean of the token states") and ran.err.count("\n") == 1
    assert found["prepared"] is True and found["bytes"]["offline"] == 0
    assert set(found) >= {"results", "embedding", "ahead"}


def test_several_prompts_are_prepared_as_one(
    puma: Run, memory: Path, one_layer: Callable[[str], Path], tmp_path: Path
) -> None:
    model, store = one_layer("llama"), ("--store", memory)
    (tmp_path / "prompts").write_text("the cat\na dog\n")
    puma("prepare", model, "--prompt", LENGTH, "--batch", 2, *store)
    asked = ("generate", model, "--prompts", tmp_path / "prompts", "--tokens", 1, *store, "--json")
    found, usual = puma(*asked).json, puma(*asked).json
    assert (found["prepared"], usual["prepared"]) == (True, False)
    assert found["results"] == usual["results"] and found["bytes"]["offline"] == 0


def test_bench_times_a_prepared_request(puma: Run, memory: Path, one_layer: Callable[[str], Path]) -> None:
    asked = ("bench", one_layer("bert"), "--prompt", LENGTH, "--prepared")
    found = puma(*asked, "--json").json
    again = found["prepared"]
    assert list(again) == ["seconds", "cpu_seconds", "rounds", "bytes", "ahead", "preprocessing"]
    assert (again["bytes"]["online"], again["bytes"]["offline"]) == (found["bytes"]["online"], 0)
    assert again["ahead"]["bytes"] == found["bytes"]["offline"] and found["max_abs_error"] < 0.05
    out = puma(*asked, "--no-error").out
    assert "again: " in out and "prepared in" in out and "preprocessing of P0, P1, P2: " in out


def test_a_store_is_emptied(puma: Run, memory: Path, one_layer: Callable[[str], Path]) -> None:
    puma("prepare", one_layer("llama"), "--prompt", LENGTH, "--store", memory)
    assert "1 model, 1 prepared request" in puma("store", "--store", memory).out
    assert "1 model, 0 prepared requests" in puma("store", "--store", memory, "--clear").out
    found = puma("store", "--store", memory, "--delete", "--json").json
    assert (found["models"], found["prepared"], found["preprocessing"]) == ({}, 0, [0, 0, 0])
    assert not [path for path in memory.glob("p*/*/*")]


def test_refusals(puma: Run, memory: Path, one_layer: Callable[[str], Path]) -> None:
    ran = puma("store", "--store", memory / "none")
    assert ran.code == 6 and "there is no store" in ran.err
    ran = puma("prepare", one_layer("llama"), "--prompt", LENGTH, "--count", 0, "--store", memory)
    assert ran.code == 2 and "cannot prepare 0 requests" in ran.err
    ran = puma("prepare", one_layer("llama"), "--prompt", 99, "--store", memory)
    assert ran.code == 2 and "context" in ran.err
    assert puma("prepare", one_layer("bert"), "--prompt", LENGTH, "--tokens", 1, "--store", memory).code == 2
    memory.chmod(0o750)
    ran = puma("generate", one_layer("llama"), WORDS, "--tokens", 1, "--store", memory)
    assert ran.code == 6 and "open to other users" in ran.err and "chmod 700" in ran.err


def test_the_default_store_is_in_memory() -> None:
    assert kept.default_folder() == Path(f"/dev/shm/puma-{os.geteuid()}")
