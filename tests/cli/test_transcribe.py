"""`puma transcribe`, and answers that begin as they are asked to, on tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_commands import check_bytes
from tests.models import speech, zoo
from tests.models.hearing.test_spectrum import tone, written

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("lent")]


def test_transcribe(puma: Run, tmp_path: Path) -> None:
    folder, file = speech.write(tmp_path / "model"), tmp_path / "it.wav"
    file.write_bytes(written(tone(300, speech.WINDOW / 16000)))
    found = puma("transcribe", folder, file, "--language", "de", "--tokens", 3, "--json").json
    assert list(found) == ["text", "windows", "token_ids", "language", "task", "seconds", "rounds", "bytes"]
    assert (found["language"], found["task"], len(found["windows"])) == ("de", "transcribe", 1)
    check_bytes(found["bytes"])
    ran = puma("transcribe", folder, file, "--tokens", 2, "--reveal-logits")
    assert ran.code == 0 and "language: " in ran.out and "not for secrets" in ran.out
    assert "--language en" in puma("transcribe", folder, file).err
    assert "needs MODEL and FILE" in puma("transcribe", folder).err
    assert "cannot be read" in puma("transcribe", folder, tmp_path / "none.wav", "--language", "de").err
    assert "tells no times" in puma("transcribe", folder, file, "--language", "de", "--times").err


def test_an_answer_begins_with_a_language(puma: Run, tmp_path: Path) -> None:
    folder = zoo.write(tmp_path, "mbart")
    asked = ("generate", folder, "the cat sat", "--tokens", "3", "--compare", "--json")
    plain, begun = puma(*asked).json, puma(*asked, "--begin", "dog").json
    assert plain["compare"]["agree"] and begun["compare"]["agree"] and plain["token_ids"] != begun["token_ids"]
    assert "has no token nowhere" in puma(*asked[:-1], "--begin", "nowhere").err
    assert "not told which language a text is in" in puma(*asked[:-1], "--from", "de_DE").err
