"""Sound becomes the spectrum that transformers makes of it, out of files of any rate; what is no sound is refused."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from puma.errors import InputError
from puma.models.hearing import files
from puma.models.hearing.spectrum import LOUDEST, RATE, filters, spectrum, windows


def tone(hertz: float, seconds: float, rate: int = RATE) -> Tensor:
    return 0.5 * (6.283185307 * hertz * torch.arange(int(seconds * rate)) / rate).sin()


def written(samples: Tensor, rate: int = RATE, size: int = 2, channels: int = 1) -> bytes:
    """A WAV file."""
    whole = (samples.double() * (2 ** (8 * size - 1) - 1)).round().long().repeat_interleave(channels)
    if size == 1:
        data = (whole + 128).to(torch.uint8).numpy().tobytes()
    else:
        data = b"".join(int(each).to_bytes(size, "little", signed=True) for each in whole)
    into = io.BytesIO()
    with wave.open(into, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(size)
        file.setframerate(rate)
        file.writeframes(data)
    return into.getvalue()


@pytest.mark.parametrize("bands", [80, 128])
def test_it_is_the_librarys(bands: int) -> None:
    extractors = pytest.importorskip("transformers", reason="transformers is not installed").WhisperFeatureExtractor
    theirs = extractors(feature_size=bands)
    generator = torch.Generator().manual_seed(1)
    noise = 0.3 * torch.randn(3 * RATE, generator=generator).clamp(-3, 3)
    sounds = [noise, tone(440, 2) + 0.001 * noise[: 2 * RATE], torch.zeros(800), tone(90, 31)]
    for samples in sounds:
        expected = torch.from_numpy(theirs(samples.numpy(), sampling_rate=RATE).input_features[0])
        found = spectrum(samples, bands)
        assert found.shape == (3000, bands) and float(found.abs().max()) < LOUDEST
        assert_close(found.T, expected.float(), atol=1e-5, rtol=0)


def test_the_loudest_sounds_stay_below_the_limit() -> None:
    loudest = [torch.ones(RATE), tone(1000, 1).sign(), tone(60, 1).sign(), torch.eye(1, RATE)[0]]
    assert max(float(spectrum(each, 128, 100).abs().max()) for each in loudest) < 2.1 < LOUDEST


def test_bands_hold_equal_areas() -> None:
    area = filters(80).sum(0) * RATE / 2 / 200
    assert filters(80).shape == (201, 80) and float((area - 1).abs().max()) < 0.35


def test_windows_are_cut_one_after_the_other() -> None:
    pieces = windows(tone(300, 0.5), 3000)
    assert [len(piece) for piece in pieces] == [3000, 3000, 2000]
    for wrong in (torch.zeros(0), torch.zeros(2, 5), torch.full((4,), 1.5), torch.tensor([float("nan")])):
        with pytest.raises(InputError):
            windows(wrong)


@pytest.mark.parametrize(("size", "channels"), [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2)])
def test_waves_of_every_width(size: int, channels: int, tmp_path: Path) -> None:
    path, expected = tmp_path / "it.wav", tone(440, 0.05)
    path.write_bytes(written(expected, RATE, size, channels))
    assert_close(files.read(path), expected, atol=2.0 ** (2 - 8 * min(size, 2)), rtol=0)
    assert torch.equal(files.read(path.read_bytes()), files.read(str(path)))


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates(rate: int) -> None:
    found = files.read(written(tone(440, 0.3, rate), rate))
    expected = tone(440, 0.3)
    assert abs(len(found) - len(expected)) <= 1
    inside = slice(1000, 3500)
    assert_close(found[inside], expected[inside], atol=2e-3, rtol=0)
    high = files.resampled(tone(11000, 0.3, 44100), 44100)  # which the lower rate cannot hold
    assert float(high[1000:3500].abs().max()) < 2e-3


def test_little_memory_is_taken_whatever_a_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate that has nothing in common with the wanted one, and a file so long that it is read in pieces."""
    tracked = list[int]()
    real = torch.arange
    monkeypatch.setattr(torch, "arange", lambda *a, **k: tracked.append(len(x := real(*a, **k))) or x)
    assert len(files.resampled(torch.zeros(90), 999_983)) == 2 and sum(tracked) < 20_000
    whole = files.resampled(tone(440, 0.3, 48000), 48000)
    monkeypatch.setattr(files, "AT_ONCE", 1000)
    assert_close(files.resampled(tone(440, 0.3, 48000), 48000), whole, atol=1e-6, rtol=0)


def test_a_packed_file_of_days_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    into = io.BytesIO()
    soundfile.write(into, numpy.zeros(9000, numpy.float32), RATE, format="FLAC")
    assert len(files.read(into.getvalue())) == 9000
    monkeypatch.setattr(files, "MOST", 8999)
    with pytest.raises(InputError, match="too much sound"):
        files.read(into.getvalue())


def test_what_is_no_file_of_sound(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        files.read(tmp_path / "missing.wav")
    with pytest.raises(InputError, match=r"no WAV file|cannot be read"):
        files.read(b"no sound at all")
    with pytest.raises(InputError, match=r"no WAV file|cannot be read"):
        files.read(b"RIFF" + numpy.zeros(20, numpy.uint8).tobytes())
    with pytest.raises(InputError, match="makes no sense"):
        files.resampled(torch.zeros(9), 7)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_a_file_that_lasts_too_long_is_refused_before_room_is_made(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one of few samples a second becomes hours at another rate."""
    content = written(torch.zeros(8000), 1000, size=1)
    if kind == "FLAC":
        soundfile, into = pytest.importorskip("soundfile", reason="soundfile is not installed"), io.BytesIO()
        soundfile.write(into, numpy.zeros(8000, numpy.float32), 1000, format=kind)
        content = into.getvalue()
    monkeypatch.setattr(files, "resampled", lambda samples, rate: samples)
    assert len(files.read(content, 8.0)) == 8000
    monkeypatch.setattr(files, "_whole", None)
    with pytest.raises(InputError, match="are the most here"):
        files.read(content, 7.9)


def test_a_stream_that_does_not_say_how_long_it_is() -> None:
    content = bytearray(written(torch.zeros(800)))
    content[40:44] = b"\xff\xff\xff\x7f"  # of its data
    assert len(files.read(bytes(content), 1.0)) == 800
