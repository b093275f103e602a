"""A number that left its range, as the command line tells it: exit code 8, or a warning and a word in the JSON."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest

from puma.cli import app
from puma.errors import OutOfRangeWarning
from puma.reference import plain_model
from tests.cli.conftest import Run
from tests.local import loud
from tests.models import tiny

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("lent")]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_model, "planned", loud.narrow)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return loud.token(tiny.llama(tmp_path / "llama", num_hidden_layers=1), "model.embed_tokens.weight", "dog")


def test_generate(puma: Run, llama: Path, tmp_path: Path) -> None:
    asked = ("generate", llama, "the dog", "--tokens", 2)
    assert puma("generate", llama, "the cat", "--tokens", 2, "--json").json["token_ids"]
    refused = puma(*asked, "--json")
    assert refused.code == 8 and refused.json["error"]["kind"] == "OutOfRange"
    assert "puma check" in refused.json["error"]["hint"]
    said = puma(*asked)
    assert said.code == 8 and "left its range" in said.err and "hint: " in said.err
    with pytest.warns(OutOfRangeWarning):
        taken = puma(*asked, "--out-of-range", "warn", "--json").json
    assert taken["out_of_range"] is True and len(taken["token_ids"]) == 2
    (tmp_path / "prompts").write_text("the cat\nthe dog\n")
    several = puma("generate", llama, "--prompts", tmp_path / "prompts", "--tokens", 2, "--json")
    assert several.code == 8 and "prompt 2 of 2" in several.json["error"]["message"]


def test_encode(puma: Run, tmp_path: Path) -> None:
    folder = loud.token(tiny.classifier(tmp_path, num_hidden_layers=1), "bert.embeddings.word_embeddings.weight", "dog")
    assert puma("encode", folder, "the cat", "--json").json["results"]
    refused = puma("encode", folder, "the cat", "the dog", "--json")
    assert refused.code == 8 and refused.json["error"]["kind"] == "OutOfRange"
    with pytest.warns(OutOfRangeWarning):
        assert puma("encode", folder, "the dog", "--out-of-range", "warn", "--json").json["out_of_range"] is True


def test_chat(puma: Run, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\nthe dog\nthe cat\n"))
    ran = puma("chat", llama, "--tokens", 2, "--json")
    assert ran.code == 8 and "OutOfRange" in ran.out


def test_evaluation(puma: Run, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("the cat sat\n\nthe dog sat\n")
    ran = puma("eval", llama, "--task", "perplexity", "--data", tmp_path / "text", "--json")
    assert ran.code == 8 and "OutOfRange" in ran.out


def test_the_program_prints_each_as_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def command(words: object) -> int:
        for _ in range(2):
            warnings.warn("a number left its range", OutOfRangeWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(app, "run", command)
    monkeypatch.setattr(app.os, "_exit", lambda code: None)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        app.main()
    assert capsys.readouterr().err == 2 * "warning: a number left its range\n"
