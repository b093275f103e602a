"""Samples to the spectrum that Whisper hears: 30 seconds, a row of bands on mel's scale every 10 milliseconds.

Source: Robust Speech Recognition via Large-Scale Weak Supervision (Radford et al. 2022), section 2.2; the scale of
Slaney's Auditory Toolbox (1998). It must not know files or shares.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from puma.errors import InputError

RATE = 16_000  # samples a second
SECONDS = 30  # of a window
WINDOW, STEP = 400, 160  # samples of a Fourier transform, and from one to the next
FLOOR = 1e-10  # of a band's energy
DEPTH = 8.0  # powers of ten below the loudest band that are told apart
LOUDEST = 4.0  # no number of a spectrum is larger: samples within 1 give less than 2.1
LINEAR, STEPS = (
    1000.0,
    27.0 / math.log(6.4),
)  # Hz up to which the scale is linear, and how many mel a factor e is beyond


def windows(samples: Tensor, length: int = SECONDS * RATE) -> list[Tensor]:
    """Samples (n,) in pieces of a window's length each; InputError for none, or for what is no sound."""
    if samples.ndim != 1 or not len(samples):
        raise InputError("there is no sound", "pass samples of one channel, at least one")
    if not bool(samples.isfinite().all()) or float(samples.abs().max()) > 1:
        raise InputError("samples lie beyond -1 and 1", "scale them first")
    return list(samples.float().split(length))


def spectrum(samples: Tensor, bands: int, rows: int = SECONDS * RATE // STEP) -> Tensor:
    """Of samples (n,) between -1 and 1, at RATE, so many rows of bands (rows, bands), silence behind the last sample.

    What lies beyond `rows` does not count. Numbers are logarithms of energies, the loudest less DEPTH at least,
    scaled and moved as the model was trained.
    """
    whole = torch.zeros(rows * STEP)
    whole[: len(samples)] = samples[: len(whole)]
    hann = torch.hann_window(WINDOW)
    waves = torch.stft(whole, WINDOW, STEP, window=hann, return_complex=True)
    energies = filters(bands).T @ waves[..., :-1].abs().pow(2)
    logs = energies.clamp(min=FLOOR).log10()
    logs = torch.maximum(logs, logs.max() - DEPTH)
    return ((logs + 4.0) / 4.0).T.contiguous()


@cache
def filters(bands: int) -> Tensor:
    """How much of each frequency belongs to each band (WINDOW / 2 + 1, bands): triangles of equal area."""
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)
    edges = _hertz(torch.linspace(0.0, float(_mel(RATE / 2)), bands + 2, dtype=torch.float64))
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies[:, None] - left) / (middle - left)
    falling = (right - frequencies[:, None]) / (right - middle)
    return (torch.minimum(rising, falling).clamp(min=0) * (2.0 / (right - left))).float()


def _mel(hertz: float) -> float:
    """15 mel are 1000 Hz; beyond, 27 of them a factor of 6.4."""
    return 3 * hertz / 200 if hertz < LINEAR else 15 + STEPS * math.log(hertz / LINEAR)


def _hertz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15, 200 * mel / 3, LINEAR * ((mel - 15) / STEPS).exp())
