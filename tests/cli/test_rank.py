"""`puma rank` prints texts, the best first, wherever they come from."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from puma.reference.plain_model import PlainModel
from tests.cli.conftest import Run
from tests.models import tiny

QUERY = "the cat sat"
TEXTS = ["a dog ran on the mat", "they went home", "the red hat"]
pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("lent")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.classifier(tmp_path / "model", ("LABEL_0",), num_hidden_layers=1)


def test_from_arguments_a_file_and_standard_input(
    puma: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear = PlainModel(folder)
    expected = [float(clear.encoded(clear.sentence_ids(QUERY, text)).sigmoid()) for text in TEXTS]
    found = puma("rank", folder, QUERY, *TEXTS, "--json").json
    assert list(found) == ["query", "results", "seconds", "rounds", "bytes"]
    assert {one["index"]: one["score"] for one in found["results"]} == pytest.approx(
        dict(enumerate(expected)), abs=0.005
    )
    order = [one["index"] for one in found["results"]]
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS) + "\n")
    for where in (("--texts", tmp_path / "texts.txt"), ()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(TEXTS) + "\n"))
        again = puma("rank", folder, QUERY, *where, "--top", 2, "--json").json
        assert [one["index"] for one in again["results"]] == order[:2]


def test_for_people(puma: Run, folder: Path) -> None:
    ran = puma("rank", folder, QUERY, *TEXTS[:2], "the big red dog " * 20)
    assert ran.code == 0 and "cut" in ran.err
    *lines, cost, where = ran.out.splitlines()
    assert sorted(line.split()[1] for line in lines) == ["1", "2", "3"]
    assert sum(line.endswith("(cut)") for line in lines) == 1
    assert "texts/s" in cost and "one machine" in where


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "QUERY"),
        ((QUERY, "the", "--texts", "some.txt"), "--texts"),
        ((QUERY, "the", "--label", "best"), "best"),
        ((QUERY, "the cat " * 30, "--cut", "refuse"), "context"),
    ],
)
def test_what_makes_no_sense(words: tuple[str, ...], says: str, puma: Run, folder: Path) -> None:
    ran = puma("rank", folder, *words)
    assert ran.code == 2 and says in ran.err
