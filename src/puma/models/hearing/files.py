"""A file of sound to samples, at the client: WAV as it is, others with soundfile if it is installed.

It must not know what hears them.
"""

from __future__ import annotations

import io
import math
import wave
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from puma.errors import InputError
from puma.models.hearing.spectrum import RATE

LONGEST = 1 << 32  # bytes of a file
MOST = 1 << 30  # numbers that a packed file may become: a small one of silence may hold days
AT_ONCE = 1 << 24  # numbers that are resampled at a time
ZEROS, ROLLOFF = 32, 0.95  # of the filter that resamples: its zeros on either side, and where it begins to fall
HINT = "pass a WAV file; FLAC, OGG and MP3 take soundfile: pip install soundfile"


def read(source: str | Path | bytes, longest: float = math.inf) -> Tensor:
    """Samples (n,) between -1 and 1 at RATE, of a file or its bytes; several channels become their mean.

    InputError for what cannot be read, and before room is made for it for what lasts longer than so many seconds.
    """
    content, name = (source, "this") if isinstance(source, bytes) else (_bytes(Path(source)), str(source))
    samples, rate = (_waves if content[:4] == b"RIFF" else _others)(content, name, longest)
    return resampled(samples, rate)


def resampled(samples: Tensor, rate: int) -> Tensor:
    """Samples (n,) of another rate at RATE, by a sinc that a Kaiser window ends."""
    if rate == RATE or not len(samples):
        return samples
    if not 1000 <= rate <= 1 << 20:
        raise InputError(f"a rate of {rate} samples a second makes no sense", "pass 1,000 to 1,048,576 a second")
    common = math.gcd(rate, RATE)
    up, down = RATE // common, rate // common
    cut = ROLLOFF * min(1.0, RATE / rate)  # of half the old rate
    reach = math.ceil(ZEROS / cut)
    count = -(-len(samples) * up // down)
    padded = torch.nn.functional.pad(samples.double(), (reach, reach + down))
    pieces, found = padded.unfold(0, 2 * reach + 1, 1), torch.empty(count, dtype=torch.float64)
    for phase in range(min(up, count)):
        first, taps = torch.arange(phase, count, up) * down // up, _filter(cut, reach, phase * down % up / up)
        found[phase::up] = torch.cat([pieces[some] @ taps for some in first.split(AT_ONCE // len(taps))])
    return found.float().clamp(-1, 1)


def _filter(cut: float, reach: int, offset: float) -> Tensor:
    """What samples up to so far on either side count (2 reach + 1,) for one that lies this far behind a sample."""
    places = torch.arange(-reach, reach + 1, dtype=torch.float64) - offset
    kaiser = torch.special.i0(12 * (1 - (places / (reach + 1)).pow(2)).clamp(min=0).sqrt())
    return cut * torch.sinc(cut * places) * kaiser / torch.special.i0(torch.tensor(12.0))


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > LONGEST:
            raise InputError(f"{path} is larger than {LONGEST >> 30} GiB", "cut it into pieces")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", HINT) from error


def _waves(content: bytes, name: str, longest: float) -> tuple[Tensor, int]:
    """Whole numbers of one to four bytes, as the standard library reads them; soundfile reads more."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            size, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            there = min(file.getnframes(), len(content) // (size * channels))  # a stream does not say how long it is
            _fits(there, rate, name, longest)
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError):
        return _others(content, name, longest)
    return _mean(_whole(data[: len(data) // (size * channels) * size * channels], size), channels), rate


def _whole(data: bytes, size: int) -> Any:
    """Numbers between -1 and 1."""
    raw = numpy.frombuffer(data, numpy.uint8)
    if size == 1:
        return (raw.astype(numpy.float32) - 128) / 128
    if size == 2:
        return numpy.frombuffer(data, "<i2").astype(numpy.float32) / (1 << 15)
    padded = numpy.zeros((len(raw) // size, 4), numpy.uint8)
    padded[:, 4 - size :] = raw.reshape(-1, size)
    return padded.view("<i4")[:, 0].astype(numpy.float64) / (1 << 31)


def _others(content: bytes, name: str, longest: float) -> tuple[Tensor, int]:
    """What soundfile reads."""
    try:
        import soundfile  # type: ignore[import-not-found]  # noqa: PLC0415  # nobody needs it for anything else
    except (ImportError, OSError):  # the latter where its library is missing
        raise InputError(f"{name} is no WAV file of whole numbers", HINT) from None
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if not 0 <= file.frames * file.channels <= MOST:
                raise InputError(f"{name} holds too much sound", "cut it into pieces")
            _fits(file.frames, file.samplerate, name, longest)
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{name} cannot be read: {error}", HINT) from error
    return torch.from_numpy(samples.mean(1)), int(rate)


def _fits(samples: int, rate: int, name: str, longest: float) -> None:
    """Whether that is no longer than allowed: a small file may be, of silence or of few samples a second."""
    if rate > 0 and samples / rate > longest:
        what = f"{name} lasts {samples / rate / 60:.0f} minutes, and {longest / 60:.0f} are the most here"
        raise InputError(what, "cut it into pieces")


def _mean(samples: Any, channels: int) -> Tensor:
    return torch.from_numpy(samples.reshape(-1, channels).mean(1).astype(numpy.float32))
