"""When something is said: which tokens of time may follow and what they mean is as transformers has it."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from puma.client.speech import subtitles, transcripts
from puma.client.speech.subtitles import Said
from puma.client.speech.times import TICK, Clock
from puma.errors import UsageError
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from tests.models import speech
from tests.models.library.compare import quiet
from tests.threads import Threads

EOS, PLAIN, FIRST, TICKS = 20, 24, 25, 12  # words, the end, languages and the like, and then times
SAMPLES = (torch.arange(2 * speech.WINDOW + 700) * 0.3).sin() * 0.7


@pytest.mark.parametrize("latest", [None, 3])
def test_what_may_follow(latest: int | None) -> None:
    """Answers that grow at random, by logits in which now words and now times are likely."""
    pytest.importorskip("transformers")
    said = SimpleNamespace(
        no_timestamps_token_id=PLAIN, eos_token_id=EOS, bos_token_id=EOS, max_initial_timestamp_index=latest
    )
    from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

    theirs: Any = WhisperTimeStampLogitsProcessor(said, begin_index=2)  # type: ignore[arg-type]
    clock, generator = Clock(FIRST, PLAIN, EOS, latest), torch.Generator().manual_seed(1)
    forced = 0
    for _ in range(60):
        new = list[int]()
        while len(new) < 9:
            row = torch.randn(FIRST + TICKS, generator=generator, dtype=torch.float64) * 2
            row[FIRST:] += torch.randn((), generator=generator) * 2
            expected = theirs(torch.tensor([[1, 2, *new]]), row[None].clone())[0]
            clock(row, new)
            assert torch.equal(row, expected), new
            forced += bool(new) and bool((row[:FIRST] == -torch.inf).all())
            new.append(int(row.softmax(-1).multinomial(1, generator=generator)))
            if new[-1] == EOS:
                break
    assert forced > 20


def test_what_a_window_says_and_where_the_next_one_begins() -> None:
    pytest.importorskip("transformers")
    from transformers.models.whisper.generation_whisper import WhisperGenerationMixin

    whole: Any = WhisperGenerationMixin._retrieve_segment
    choice, kinds = random.Random(3), set[tuple[bool, int]]()
    for _ in range(300):
        times = sorted(choice.choices(range(TICKS), k=choice.randint(1, 6)))
        tokens = [FIRST + times[0]]
        for tick in times[1:]:
            tokens += choice.choices(range(EOS), k=choice.randint(1, 2)) + [FIRST + tick] * choice.choice([1, 2, 2])
        tokens += choice.choices(range(EOS), k=choice.randint(0, 2))
        rows = choice.choice([2 * TICKS, 2 * TICKS - 3])
        expected, step = whole(
            torch.tensor(tokens), [{}], torch.tensor([0.0], dtype=torch.float64), FIRST, torch.tensor([rows]), TICK,
            TICK / 2, 2, 0, 0, False, torch.zeros(1, 3),
        )  # fmt: skip
        parts, mine = Clock(FIRST, PLAIN, EOS).parts(tokens, rows)
        assert [tick * TICK for p in parts for tick in p[:2]] == pytest.approx(
            [float(s[name]) for s in expected for name in ("start", "end")]
        ), tokens
        assert [p.tokens for p in parts] == [[t for t in s["tokens"].tolist() if t < FIRST] for s in expected]
        assert mine == (int(step) if 0 < int(step) < rows else rows)
        kinds.add((mine == rows, len(parts)))
    assert len(kinds) > 5


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(speech.write(tmp_path_factory.mktemp("whisper"), 9, max_initial_timestamp_index=4))


def test_three_parties_tell_what_the_library_tells(clear: PlainModel) -> None:
    clock, window = transcripts.clock(clear), SAMPLES[: speech.WINDOW]
    begun = transcripts.begins(clear, "de", "transcribe", times=True)
    with quiet() as transformers, torch.no_grad():
        model = transformers.WhisperForConditionalGeneration.from_pretrained(clear.checkpoint.folder)
        code, task = begun
        for name, value in {
            "no_timestamps_token_id": clock.plain, "is_multilingual": True, "lang_to_id": {"<|de|>": code},
            "task_to_id": {"transcribe": task}, "pad_token_id": 2, "return_timestamps": True,
        }.items():  # fmt: skip
            setattr(model.generation_config, name, value)
        (heard,) = transcripts.heard(clear, window)
        asked = {"language": "de", "task": "transcribe", "return_segments": True, "max_new_tokens": 5}
        (expected,) = model.generate(heard.T[None], return_timestamps=True, **asked)["segments"]
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        found = cluster.transcribe(window, "de", tokens=5, times=True)
        whole = cluster.transcribe(SAMPLES, "de", tokens=5, times=True)
    told = [(s["start"].item(), s["end"].item(), clear.decode(s["tokens"].tolist())) for s in expected]
    assert [(part.start, part.end, part.text) for part in found.parts] == [
        (pytest.approx(start), pytest.approx(end), text.strip()) for start, end, text in told if text.strip()
    ]
    assert found.parts and found.token_ids[0][0] >= clock.first and clock.plain not in found.token_ids[0]
    assert all(a.start <= a.end <= len(SAMPLES) / 16000 for a in whole.parts)
    assert len(whole.windows) >= 3 and whole.parts[0] == found.parts[0]


def test_times_need_logits_and_a_model_that_tells_them(clear: PlainModel, tmp_path: Path) -> None:
    wanted = transcripts.Wanted("de", times=True)
    with pytest.raises(UsageError, match="does not let clients see"):
        transcripts.check(clear, wanted, reveals=False)
    with pytest.raises(UsageError, match="tells no times"):
        transcripts.check(PlainModel(speech.write(tmp_path)), wanted, reveals=True)


def test_subtitles() -> None:
    parts = [Said(0.0, 1.5, "one", [1]), Said(3661.25, 3662.0, "two", [2])]
    assert subtitles.srt(parts) == ("1\n00:00:00,000 --> 00:00:01,500\none\n\n2\n01:01:01,250 --> 01:01:02,000\ntwo\n")
    assert subtitles.vtt(parts).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\none\n\n01:01:01.250")
    (line,) = subtitles.srt([Said(0.0, 1.0, "a\n\n2\n00:00 --> 01:00", [1])]).splitlines()[2:]
    assert line == "a 2 00:00 -> 01:00" and line in subtitles.vtt([Said(0.0, 1.0, "a\n\n2\n00:00 --> 01:00", [1])])
