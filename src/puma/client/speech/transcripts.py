"""Sound to text, window by window: each is one request, whose answer begins with a language and a task.

The parties learn how many windows there are and how long each answer is; what is spoken, in which language, and whether
it is translated they do not. With times a window begins where the last part of the one before ended, so that how many
there are also says something of where pauses lie. This file must not know where the session leads to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from puma.client import arguments
from puma.client.beam_search import Beams
from puma.client.cost import Cost, added
from puma.client.model_info import ModelInfo
from puma.client.sampling import Sampling
from puma.client.session import Session
from puma.client.speech.subtitles import Said
from puma.client.speech.times import TICK, Clock
from puma.client.tokens.ending import until, up_to_end
from puma.errors import InputError, UsageError
from puma.models import inputs
from puma.models.hearing.files import read
from puma.models.hearing.spectrum import RATE, STEP, spectrum, windows

Task = Literal["transcribe", "translate"]
TASKS = ("transcribe", "translate")
LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
TIME = re.compile(r"<\|\d+\.\d\d\|>")
PLAIN = "<|notimestamps|>"
Progress = Callable[[int, int], None]  # windows that are done, of how many, as far as is known


@dataclass(frozen=True)
class Transcript:
    """What was said, as one text and window by window, in which `language` (none of a model that knows but one), its
    token ids and what the requests cost; and `parts` with their times, if these were asked for."""

    text: str
    language: str | None
    windows: list[str]
    token_ids: list[list[int]]
    cost: Cost
    parts: list[Said] = field(default_factory=list[Said])


@dataclass(frozen=True)
class Wanted:
    """How sound becomes text. `tokens` of each window, 0 for as many as the model gives; with more than one of `beams`
    the likeliest text is searched for, and with `times` each part says when it is said, both of which need logits."""

    language: str | None = None
    task: Task = "transcribe"
    tokens: int = 0
    beams: int = 1
    length_penalty: float = 1.0
    times: bool = False

    @classmethod
    def of(cls, language: Any, task: Any, tokens: Any, beams: Any, length_penalty: Any, times: Any = False) -> Wanted:
        """The same of whatever a caller passes; UsageError for what makes no sense whichever model it is."""
        named, what = None if language is None else arguments.text(language), arguments.one_of(task, "task", TASKS)
        counts = arguments.count(tokens, "tokens", 0), arguments.count(beams, "beams", 1)
        penalty = arguments.number(length_penalty, "a length penalty")
        return cls(named, what, *counts, penalty, arguments.flag(times, "times"))  # type: ignore[arg-type]


def check(model: ModelInfo, wanted: Wanted, reveals: bool) -> None:
    """UsageError for a model that hears nothing, and for what it cannot be asked, before anything is sent."""
    if inputs(model.config).kind != "audio":
        raise UsageError(f"{model.name} hears nothing", "use a Whisper model")
    if wanted.task not in TASKS:
        raise UsageError(f"there is no task {wanted.task}", f"choose {' or '.join(TASKS)}")
    if wanted.language is not None:
        begins(model, wanted.language, wanted.task)
    elif spoken(model) and not reveals:
        what = "the language of the sound is not known, and telling it needs logits"
        raise UsageError(what, "name it: language='en' (--language en), or let the owner share with reveal_logits")
    elif not spoken(model) and wanted.task == "translate":
        raise UsageError(f"{model.name} does not translate", "use a Whisper model of several languages")
    if wanted.beams > 1:
        Beams(wanted.beams, 1, penalty=wanted.length_penalty)  # refuses
    if not 0 <= wanted.tokens <= room(model):
        raise UsageError(f"{wanted.tokens} tokens of a window", f"choose up to {room(model)}")
    if wanted.times:
        clock(model)
        if not reveals:
            what = "when something is said follows from logits, which the model's owner does not let clients see"
            raise UsageError(what, "leave out the times, or let the owner share with reveal_logits (--reveal-logits)")


def transcribe(
    session: Session, model: ModelInfo, sound: str | Path | bytes | Tensor, wanted: Wanted,
    progress: Progress | None = None,
) -> Transcript:  # fmt: skip
    """What is said in a file, its bytes or samples (n,) at 16 kHz."""
    check(model, wanted, session.reveals)
    *_, found = transcribing(session, model, samples_of(sound), wanted, progress)
    assert found is not None
    return found


def transcribing(
    session: Session, model: ModelInfo, samples: Tensor, wanted: Wanted, progress: Progress | None = None
) -> Iterator[Transcript | None]:  # fmt: skip
    """The same of samples as samples_of gives them, request by request: nothing after each but the last. Whoever leaves
    it sends no more."""
    check(model, wanted, session.reveals)
    longest, total, at = inputs(model.config).rows, -(-len(samples) // STEP), 0
    found, texts, parts = list[list[int]](), list[str](), list[Said]()
    costs, language, timed = list[Cost](), wanted.language, clock(model) if wanted.times else None
    while at < total:
        if progress:
            progress(len(found), len(found) - (at - total) // longest)
        window = heard_at(model, samples, at)
        if language is None and spoken(model):
            language = detected(session, model, window)
            costs.append(_cost(session))
        begun = begins(model, language, wanted.task, wanted.times)
        found.append(answered(session, model, window, begun, wanted, timed))
        costs.append(_cost(session))
        own, step = _said(model, found[-1], timed, samples, at) if timed else ([], longest)
        parts += own
        texts.append(" ".join(part.text for part in own) if timed else _written(model, found[-1]))
        at += step
        if at < total:
            yield None
    session.cost = whole = added(costs)
    text = (" " if timed else "").join(texts).strip()
    yield Transcript(text, language, [each.strip() for each in texts], found, whole, parts)


def _said(
    model: ModelInfo, tokens: Sequence[int], timed: Clock, samples: Tensor, at: int
) -> tuple[list[Said], int]:  # fmt: skip
    """The parts of a window that begins `at` a row of samples, and after how many rows the next one begins."""
    rows = min(inputs(model.config).rows, -(-len(samples) // STEP) - at)
    found, step = timed.parts(tokens, rows)
    start, last = at * STEP / RATE, min((at + rows) * STEP, len(samples)) / RATE
    at_seconds = [min(last, start + tick * TICK) for part in found for tick in (part.start, part.end)]
    spans = zip(at_seconds[::2], at_seconds[1::2], found, strict=True)
    each = [Said(begins, ends, model.decode(part.tokens).strip(), part.tokens) for begins, ends, part in spans]
    return [part for part in each if part.text], step


def samples_of(sound: str | Path | bytes | Tensor | numpy.ndarray, longest: float = math.inf) -> Tensor:
    """Samples (n,) of a file, its bytes or samples already; InputError for what is no sound, and for a file that lasts
    longer than so many seconds."""
    if isinstance(sound, Tensor | numpy.ndarray):
        samples = _samples(sound)
    else:
        samples = read(sound if isinstance(sound, bytes) else arguments.path_like(sound, "a file of sound"), longest)
    windows(samples)
    return samples.float()


def _samples(sound: Any) -> Tensor:
    """Numbers of torch or numpy; of whole ones nobody says how large the largest is."""
    floats = sound.is_floating_point() if isinstance(sound, Tensor) else sound.dtype.kind == "f"
    if not floats:
        raise UsageError(f"samples cannot be of type {sound.dtype}", "pass numbers between -1 and 1")
    return torch.as_tensor(sound if isinstance(sound, Tensor) else numpy.ascontiguousarray(sound, numpy.float32))


def heard(model: ModelInfo, sound: str | Path | bytes | Tensor | numpy.ndarray) -> list[Tensor]:
    """The spectra (rows, bands) of windows of sound side by side; InputError for what is none."""
    samples = samples_of(sound)
    return [heard_at(model, samples, at) for at in range(0, -(-len(samples) // STEP), inputs(model.config).rows)]


def heard_at(model: ModelInfo, samples: Tensor, row: int) -> Tensor:
    """The spectrum (rows, bands) of a window that begins at a row of samples."""
    reads = inputs(model.config)
    return spectrum(samples[row * STEP : (row + reads.rows) * STEP], reads.width, reads.rows)


def tells_times(model: ModelInfo) -> bool:
    """Whether it can say when something is said."""
    plain = model.tokenizer.token_to_id(PLAIN)
    return plain is not None and plain + 1 < model.config.vocab_size and bool(model.eos)


def clock(model: ModelInfo) -> Clock:
    """How it tells times; UsageError for one that does not."""
    if not tells_times(model):
        raise UsageError(f"{model.name} tells no times", "leave them out")
    plain = model.tokenizer.token_to_id(PLAIN)
    return Clock(plain + 1, plain, model.eos[0], model.rules.max_initial_timestamp_index)


def answered(
    session: Session, model: ModelInfo, window: Tensor, begun: list[int], wanted: Wanted, timed: Clock | None = None
) -> list[int]:  # fmt: skip
    """The tokens of one window, up to the end of its text."""
    most = wanted.tokens or room(model)
    if wanted.beams > 1:
        beams = model.searching([], wanted.beams, most, wanted.length_penalty, begun, timed)
        for _ in session.search(window, beams, stop=True, begun=begun):  # type: ignore[arg-type]  # a spectrum
            pass
        return beams.best
    ended, found = until("eos", model.eos, 1, model.name), list[int]()
    following = model.following([[]], session.reveals, begun, timed)
    how: dict[str, Any] = session.choosing(Sampling(), following)
    windowed: Any = [window]
    with closing(session.continued(windowed, most, paced=True, begun=[begun] if begun else (), **how)) as steps:
        for (token,) in steps:
            found.append(token)
            if ended and ended([token]):
                break
    return up_to_end(found, model.eos)


def detected(session: Session, model: ModelInfo, window: Tensor) -> str:
    """The likeliest language of a window, by the logits of what would come first."""
    known = languages(model)
    ids, found = torch.tensor([*known.values()]), list[str]()

    def choose(logits: Tensor) -> list[int]:
        best = int(logits[0, ids].argmax())
        found.append([*known][best])
        return [int(ids[best])]

    windowed: Any = [window]
    for _ in session.continued(windowed, 1, choose=choose):
        pass
    return found[0]


def begins(model: ModelInfo, language: str | None, task: str, times: bool = False) -> list[int]:
    """The tokens behind the first one with which an answer begins, perhaps one with `times`; UsageError for a language
    that it does not know."""
    plain = [] if times else [PLAIN]
    named = plain
    if spoken(model):
        known = languages(model)
        if language not in known:
            hint = f"choose one of {', '.join(sorted(known)[:12])} and others, as codes of two letters"
            raise UsageError(f"{model.name} knows no language {language}", hint)
        named = [f"<|{language}|>", f"<|{task}|>", *plain]
    elif language not in (None, "en"):
        raise UsageError(f"{model.name} knows English alone", "leave out the language")
    return [
        _number(model, token) for token in named if token != PLAIN or model.tokenizer.token_to_id(PLAIN) is not None
    ]


def spoken(model: ModelInfo) -> bool:
    """Whether its answers begin with a language and a task."""
    return inputs(model.config).spoken


def languages(model: ModelInfo) -> dict[str, int]:
    """The languages that a model knows, by their codes, and the token of each."""
    vocabulary: dict[str, int] = model.tokenizer.get_vocab()
    found = ((LANGUAGE.fullmatch(token), number) for token, number in vocabulary.items())
    return {match[1]: number for match, number in sorted(found, key=lambda each: each[1]) if match}


def room(model: ModelInfo) -> int:
    """The tokens that a window can have behind what its answer begins with."""
    reads = inputs(model.config)
    return reads.room(0) - reads.begun


def seconds(model: ModelInfo) -> float:
    """Of a window."""
    return inputs(model.config).rows * STEP / RATE


def _number(model: ModelInfo, token: str) -> int:
    number = model.tokenizer.token_to_id(token)
    if number is None:
        raise InputError(f"the tokenizer of {model.name} has no {token}", "use its own tokenizer")
    return number


def _written(model: ModelInfo, ids: Sequence[int]) -> str:
    """The text of a window, without what marks times."""
    return TIME.sub("", model.decode(ids))


def _cost(session: Session) -> Cost:
    assert session.cost is not None
    return session.cost
