"""/v1/audio/transcriptions and translations answer OpenAI's own client with what the plain model hears."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch

from puma.client.speech import transcripts
from puma.gateway.guard import MAX_SOUND
from tests.gateway.conftest import Served, serving
from tests.models import speech
from tests.models.hearing.test_spectrum import tone, written

pytest.importorskip("python_multipart", reason="python-multipart is not installed")
SOUND = written(tone(300, (speech.WINDOW + 500) / 16000))


@pytest.fixture(scope="module")
def hearing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = speech.write(tmp_path_factory.mktemp("hearing") / "model")
    with serving(folder) as served:
        yield served


def heard(served: Served, task: str) -> str:
    begun = transcripts.begins(served.clear, "en", task)
    most = transcripts.room(served.clear)
    found = [served.clear.greedy(piece, most, begun=begun) for piece in transcripts.heard(served.clear, SOUND)]  # type: ignore[arg-type]
    return "".join(served.clear.decode(transcripts.up_to_end(ids, served.clear.eos)) for ids in found).strip()


def test_what_is_said_and_what_it_means(hearing: Served) -> None:
    file = ("it.wav", SOUND)
    found = hearing.client.audio.transcriptions.create(model="tiny", file=file, language="en")
    assert found.text == heard(hearing, "transcribe")
    told = post(hearing, "translations", language="en", response_format="verbose_json").json()
    assert told["text"] == heard(hearing, "translate") and (told["task"], told["language"]) == ("translate", "en")
    assert [part["start"] for part in told["segments"]] == [0.0, speech.WINDOW / 16000]
    assert post(hearing, "transcriptions", language="en", response_format="text").text == found.text + "\n"


def post(served: Served, path: str, sound: bytes = SOUND, **fields: str) -> Any:
    given = {"model": "tiny"} | fields
    return httpx.post(f"{served.url}/v1/audio/{path}", files={"file": ("it.wav", sound)}, data=given, timeout=60)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "other", "language": "en"}, "model"),
        ({"language": "xx"}, "language"),
        ({"language": "en", "prompt": "Names"}, "prompt"),
        ({"language": "en", "temperature": "0.7"}, "temperature"),
        ({"language": "en", "response_format": "srt"}, "response_format"),
        ({"language": "en", "speed": "2"}, "speed"),
    ],
)
def test_what_is_refused(fields: dict[str, str], param: str, hearing: Served) -> None:
    answer = post(hearing, "transcriptions", **fields)
    assert answer.status_code in (400, 404) and answer.json()["error"]["param"] == param


def test_what_is_no_sound_or_too_much_of_it(hearing: Served) -> None:
    assert post(hearing, "transcriptions", b"no sound", language="en").json()["error"]["param"] == "file"
    assert post(hearing, "transcriptions", bytes(MAX_SOUND), language="en").status_code == 413
    url = f"{hearing.url}/v1/audio/transcriptions"
    assert httpx.post(url, json={"model": "tiny"}).status_code == 415
    elsewhere = {"origin": "http://elsewhere.example"}
    assert httpx.post(url, files={"file": SOUND}, headers=elsewhere).status_code == 403
    unknown = post(hearing, "transcriptions").json()["error"]
    assert "language of the sound is not known" in unknown["message"]


def test_a_model_that_hears_writes_nothing_by_itself(hearing: Served) -> None:
    asked = {"model": "tiny", "prompt": "the cat"}
    answer = httpx.post(f"{hearing.url}/v1/completions", json=asked)
    assert answer.status_code == 400 and "reads no texts" in answer.json()["error"]["message"]
    assert torch.is_tensor(transcripts.heard(hearing.clear, SOUND)[0])
