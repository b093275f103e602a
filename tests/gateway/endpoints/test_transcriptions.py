"""/v1/audio/transcriptions and translations answer OpenAI's own client with what the plain model hears."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puma.client.speech import transcripts
from puma.gateway.endpoints import transcriptions as endpoint
from puma.gateway.guard import MAX_SOUND
from puma.gateway.load.keys import Key, Keys, digest
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
    told = json.loads(post(hearing, "translations", language="en", response_format="verbose_json")[1])
    assert told["text"] == heard(hearing, "translate") and (told["task"], told["language"]) == ("translate", "en")
    assert [part["start"] for part in told["segments"]] == [0.0, speech.WINDOW / 16000]
    assert post(hearing, "transcriptions", language="en", response_format="text")[1].decode() == found.text + "\n"


def test_when_it_is_said(tmp_path: Path) -> None:
    with serving(speech.write(tmp_path / "model", 9), reveal=True) as served:
        told = json.loads(post(served, "transcriptions", language="en", response_format="verbose_json")[1])
        lasts = (speech.WINDOW + 500) / 16000
        assert told["duration"] == pytest.approx(lasts) and told["segments"]
        assert all(0 <= part["start"] <= part["end"] <= lasts and part["text"] for part in told["segments"])
        lines = post(served, "transcriptions", language="en", response_format="srt")[1].decode().splitlines()
        assert lines[0] == "1" and " --> " in lines[1] and lines[2] == told["segments"][0]["text"]
        vtt = post(served, "transcriptions", language="en", response_format="vtt")[1].decode()
        assert vtt.startswith("WEBVTT\n\n") and vtt.count(" --> ") == len(told["segments"])
    with serving(speech.write(tmp_path / "hidden", 9)) as served:
        answer = post(served, "transcriptions", language="en", response_format="srt")
        assert answer[0] == 400 and "does not let clients see" in problem(answer)["message"]


def sent(url: str, body: bytes, kind: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, {"content-type": kind} | headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def post(served: Served, path: str, sound: bytes = SOUND, headers: Any = None, **fields: Any) -> tuple[int, bytes]:
    """A form as a browser or curl sends it."""
    head = '--it\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    said = {"model": "tiny"} | fields
    parts = [head.format(name, "").encode() + value.encode() + b"\r\n" for name, value in said.items()]
    parts += [head.format("file", '; filename="it.wav"').encode() + sound + b"\r\n", b"--it--\r\n"]
    url = f"{served.url}/v1/audio/{path}"
    return sent(url, b"".join(parts), "multipart/form-data; boundary=it", **(headers or {}))


def problem(answer: tuple[int, bytes]) -> Any:
    return json.loads(answer[1])["error"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "other", "language": "en"}, "model"),
        ({"language": "xx"}, "language"),
        ({"language": "en", "prompt": "Names"}, "prompt"),
        ({"language": "en", "temperature": "0.7"}, "temperature"),
        ({"language": "en", "response_format": "srt"}, "response_format"),  # this one tells no times
        ({"language": "en", "speed": "2"}, "speed"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], param: str, hearing: Served) -> None:
    answer = post(hearing, "transcriptions", **fields)
    assert answer[0] in (400, 404) and problem(answer)["param"] == param


def test_what_is_no_sound_or_comes_from_elsewhere(hearing: Served) -> None:
    assert problem(post(hearing, "transcriptions", b"no sound", language="en"))["param"] == "file"
    url = f"{hearing.url}/v1/audio/transcriptions"
    assert sent(url, b"{}", "application/json")[0] == 415
    assert post(hearing, "transcriptions", headers={"origin": "http://elsewhere.example"})[0] == 403
    assert sent(url, b"", "multipart/form-data; boundary=it", **{"content-length": str(MAX_SOUND + 1)})[0] == 413
    assert "language of the sound is not known" in problem(post(hearing, "transcriptions"))["message"]


def test_a_model_that_hears_goes_on_from_no_text(hearing: Served) -> None:
    asked = json.dumps({"model": "tiny", "prompt": "the cat"}).encode()
    answer = sent(f"{hearing.url}/v1/completions", asked, "application/json")
    assert answer[0] == 400 and "reads no texts" in problem(answer)["message"]


def test_how_much_sound_may_wait(hearing: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody keeps others out by files that become large: a file has a limit, and so have all that wait."""
    monkeypatch.setattr(endpoint, "LONGEST", 0.1)
    answer = post(hearing, "transcriptions", language="en")
    assert answer[0] == 400 and problem(answer)["param"] == "file" and "are the most here" in problem(answer)["message"]
    monkeypatch.undo()
    monkeypatch.setattr(hearing.gateway, "sound", endpoint.MOST)
    answer = post(hearing, "transcriptions", language="en")
    assert answer[0] == 429 and "minutes of sound wait" in problem(answer)["message"]
    monkeypatch.undo()
    assert post(hearing, "transcriptions", language="en")[0] == 200 and hearing.gateway.sound == 0


def test_sound_counts_among_the_tokens_of_a_key(tmp_path: Path) -> None:
    keys = Keys({digest("sk-few"): Key("alice", tokens=1)})
    with serving(speech.write(tmp_path / "model"), keys=keys, api_key="sk-few") as served:
        answer = post(served, "transcriptions", headers={"authorization": "Bearer sk-few"}, language="en")
        assert answer[0] == 400 and problem(answer)["code"] == "tokens_exceeded"
