"""Sound as text by three parties: what the plain model writes, window by window, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from puma.client.client import Client
from puma.client.speech import transcripts
from puma.errors import InputError, PolicyError, UsageError
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from tests.models import speech, zoo
from tests.threads import Threads

SAMPLES = torch.cat([(torch.arange(speech.WINDOW + 900) * step).sin() * 0.7 for step in (0.3, 0.05)])[
    : speech.WINDOW + 900
]


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    folder = tmp_path_factory.mktemp("whisper")
    return PlainModel(speech.write(folder, suppress_tokens=[4, 11], begin_suppress_tokens=[2]))


def plainly(clear: PlainModel, language: str, task: str, tokens: int) -> list[list[int]]:
    """What the plain model gives of each window."""
    begun = transcripts.begins(clear, language, task)
    found = [clear.greedy(piece, tokens, begun=begun) for piece in transcripts.heard(clear, SAMPLES)]  # type: ignore[arg-type]
    return [transcripts.up_to_end(ids, clear.eos) for ids in found]


def test_windows_are_heard_as_by_the_plain_model(clear: PlainModel) -> None:
    expected, done = plainly(clear, "de", "transcribe", 4), list[tuple[int, int]]()
    assert expected != plainly(clear, "fr", "translate", 4), "what an answer begins with changes nothing"
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        found = cluster.transcribe(SAMPLES, "de", tokens=4, progress=lambda *at: done.append(at))
        assert (found.token_ids, found.language, done) == (expected, "de", [(0, 2), (1, 2)])
        assert not {4, 11} & {token for ids in expected for token in ids} and 2 not in (ids[0] for ids in expected)
        assert found.text == "".join(map(clear.decode, expected)).strip() and len(found.windows) == 2
        with pytest.raises(UsageError, match="language of the sound is not known"):
            cluster.transcribe(SAMPLES)
        with pytest.raises(PolicyError, match="needs logits"):
            cluster.transcribe(SAMPLES, "de", beams=2)
        with pytest.raises(UsageError, match="reads no texts"):
            cluster.generate("the cat", 2)


def test_with_logits_the_language_is_told_and_texts_are_searched(clear: PlainModel) -> None:
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        found = cluster.transcribe(SAMPLES[: speech.WINDOW], tokens=3)
        assert found.language in speech.LANGUAGES
        again = cluster.transcribe(SAMPLES[: speech.WINDOW], found.language, tokens=3)
        assert (again.token_ids, again.cost.rounds < found.cost.rounds) == (found.token_ids, True)
        searched = cluster.transcribe(SAMPLES[: speech.WINDOW], "en", tokens=3, beams=2)
        (window,), begun = (
            transcripts.heard(clear, SAMPLES[: speech.WINDOW]),
            transcripts.begins(clear, "en", "transcribe"),
        )
        beams = clear.searching([], 2, 3, 1.0, begun)
        list(clear.session.search(window, beams, stop=True, begun=begun))  # type: ignore[arg-type]
        assert searched.token_ids == [beams.best]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"language": "xx"}, "knows no language xx"),
        ({"language": "en", "task": "sing"}, "no task sing"),
        ({"language": "en", "tokens": 99}, "99 tokens of a window"),
    ],
)
def test_what_cannot_be_asked(asked: dict[str, Any], says: str, clear: PlainModel) -> None:
    with pytest.raises(UsageError, match=says):
        transcripts.check(clear, transcripts.Wanted(**asked), reveals=False)


def test_a_model_of_texts_hears_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hears nothing"):
        transcripts.check(PlainModel(zoo.write(tmp_path, "t5")), transcripts.Wanted("en"), reveals=False)


def test_english_alone(tmp_path: Path) -> None:
    model = PlainModel(speech.write(tmp_path, is_multilingual=False))
    plain = model.tokenizer.token_to_id(transcripts.PLAIN)
    assert transcripts.begins(model, None, "transcribe") == [plain] == transcripts.begins(model, "en", "transcribe")
    with pytest.raises(UsageError, match="English alone"):
        transcripts.begins(model, "de", "transcribe")
    with pytest.raises(UsageError, match="does not translate"):
        transcripts.check(model, transcripts.Wanted(task="translate"), reveals=False)


def test_no_sound(clear: PlainModel) -> None:
    with pytest.raises(InputError):
        transcripts.heard(clear, torch.zeros(0))


class Unasked(Client):
    """Of parties that nobody may ask anything."""

    session = SimpleNamespace(reveals=True)  # type: ignore[assignment]

    def __init__(self, model: PlainModel) -> None:
        self.model = model

    def close(self) -> None: ...


@pytest.mark.parametrize(
    "asked",
    [
        *({"beams": x} for x in (None, 0, -1, 1.5, "2", True, 99)),
        *({"length_penalty": x} for x in (None, "1", float("nan"), 1e9)),
        *({"language": x} for x in (5, b"en", ["en"])),
        *({"task": x} for x in (None, 5, "sing", ["translate"])),
        *({"tokens": x} for x in (None, -1, "4", 1.5, 999)),
        *({"sound": x} for x in (None, 5, ["a"], "", "no-such-file.wav", b"no sound", torch.zeros(9).int())),
        {"progress": "say"},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_before_anything_is_sent(asked: dict[str, Any], clear: PlainModel) -> None:
    with pytest.raises(UsageError) as refused:
        Unasked(clear).transcribe(**{"sound": SAMPLES, "language": "de", "tokens": 2, "beams": 2} | asked)
    assert refused.value.hint


def test_samples_of_numpy_are_samples(clear: PlainModel) -> None:
    for one, other in zip(transcripts.heard(clear, SAMPLES.numpy()), transcripts.heard(clear, SAMPLES), strict=True):
        assert torch.equal(one, other)
