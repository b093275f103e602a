"""`puma transcribe`: what is said in a file of sound, by a Whisper model."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from puma.cli import ui
from puma.cli.options import FITTED, HUMAN, Count, Fitting, Flag, Output, Profile
from puma.cli.where import HERE, Where, opened
from puma.errors import UsageError


def transcribe(
    model: str,
    file: str | None = None,
    /,
    *,
    language: str | None = None,
    task: Literal["transcribe", "translate"] = "transcribe",
    tokens: Count = 0,
    beams: Count = 1,
    length_penalty: float = 1.0,
    times: Flag = False,
    reveal_logits: Flag = False,
    approximation: Profile = "spline",
    fitting: Fitting = FITTED,
    where: Where = HERE,
    output: Output = HUMAN,
) -> None:
    """Write down what is said in a file of sound, window by window of 30 seconds.

    Parameters
    ----------
    model
        A folder or a hub name of a Whisper model; with --cluster the file.
    file
        A WAV file; FLAC, OGG and MP3 with soundfile installed.
    language
        The language that is spoken, as a code: en, de, fr. Left out, the first window tells it, which needs logits.
    task
        translate: write it down in English.
    tokens
        As many of each window at most; 0 for as many as the model gives.
    beams
        Search for the likeliest text by so many at a time; needs logits.
    length_penalty
        Of a search: a text is worth its score over its length to this power.
    times
        Show of each part of what is said when it begins and ends; needs logits.
    reveal_logits
        Parties on this machine let the client see logits, as their owner allows.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    """
    where.check()
    source, path = _named(where, model, file)
    from puma.client.model_info import ModelInfo
    from puma.client.speech import subtitles
    from puma.client.speech.transcripts import Wanted, check, samples_of

    def asked(clear: ModelInfo) -> int:
        wanted = Wanted(language, task, tokens, beams, length_penalty, times)
        check(clear, wanted, reveal_logits or where.cluster is not None)
        return len(samples_of(Path(path)))

    started = time.perf_counter()
    with ui.progress(output.json) as progress:
        cluster, _ = opened(where, source, asked, progress, None, approximation, reveal_logits, fitting)
        loaded = time.perf_counter() - started
        with cluster:
            found = cluster.transcribe(
                Path(path), language, task, tokens, beams, length_penalty,
                lambda done, of: progress("the parties listen", done, of), times,
            )  # fmt: skip
    where.keep(cluster)
    cost = found.cost
    if output.json:
        answer: dict[str, Any] = {"text": found.text, "windows": found.windows, "token_ids": found.token_ids}
        seconds = {"load": loaded, "transcribe": cost.seconds}
        more = {"language": found.language, "task": task, "seconds": seconds, "rounds": cost.rounds}
        answer |= {"parts": [asdict(part) for part in found.parts]} if times else {}
        ui.answer(answer | more | {"bytes": cost.bytes()} | ui.profile(approximation) | ui.doubtful(cluster))
        return
    for part in found.parts:
        ui.say(f"[{subtitles.clock(part.start)} --> {subtitles.clock(part.end)}] {part.text}")
    if not times:
        ui.say(found.text)
    if language is None and found.language:
        ui.say(f"language: {found.language}")
    ui.say(ui.cost_line(cost, sum(map(len, found.token_ids))))
    where.say_local()


def _named(where: Where, model: str, file: str | None) -> tuple[str | None, str]:
    """The model, if it is on this machine, and the file."""
    if where.cluster is not None:
        if file is not None:
            raise UsageError("the cluster has its models already", "name one by --model, and pass the file alone")
        return None, model
    if file is None:
        raise UsageError("puma transcribe needs MODEL and FILE", "pass a folder and a WAV file")
    return model, file
