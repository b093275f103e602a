"""The owner runs its model in the clear over texts of many kinds, or over images, to see how large numbers become.

All texts of a group go through a layer together and each parameter is read once a group, so that a model larger than
memory is calibrated in the memory of its largest parameter. It must not know what formats follow.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from puma.client.chat.conversation import Conversation
from puma.client.model_info import ModelInfo
from puma.errors import InputError, PumaError, UsageError
from puma.models import Cache, architecture, formats, heads, images, inputs, text
from puma.models.config import Config
from puma.models.formats import places
from puma.models.hearing import files as files_of_sound
from puma.models.hearing.spectrum import RATE, STEP, spectrum, windows
from puma.nn.paper import SPLINE, marked
from puma.reference.calibration_texts import CHAT, TEXTS
from puma.reference.observed import Reader, Watch

Progress = Callable[[str, int, int], None]
LENGTHS = (384, 256, 192, 128, 96, 64, 32)  # to which built-in texts are cut, so that large models are not slow
WORK = 1 << 38  # products of weights with tokens that the built-in texts may take
FEWEST, MOST = 512, 4096  # tokens of them, however large or small the model
SCORES = 1 << 27  # numbers of a layer's scores that a group of texts may make
SMALL = 1 << 26  # weights that are read again rather than that short texts be padded to the length of long ones
STEPS = 6  # tokens that a model with an encoder is let answer
OWN, OWN_LENGTH = 4, 64  # rows of tokens in no order, and how long they are
PICTURES, SOUNDS = 12, 10


def samples(model: ModelInfo, folder: Path, more: Sequence[str] = ()) -> list[text.Tokens]:
    """What to run the model on: what comes with Puma, and `more` of the owner's: texts, or files of images or sound."""
    if inputs(model.config).kind == "audio":
        return _sounds(model.config, more)
    if not inputs(model.config).tokenized:
        return _pictures(model, folder, more)
    found = [*_chats(model), *_encoded(model, TEXTS), *_pairs(model)]
    length = _length(model.config, [len(tokens.ids) for tokens in found])
    own = [cut(tokens, model.config.context) for tokens in _encoded(model, more)]
    return [*own, *(cut(tokens, length) for tokens in [*_own(model), *found])]


def observe(
    config: Config, params: Mapping[str, Tensor], given: Sequence[text.Tokens], progress: Progress,
    approximations: Sequence[str] = (SPLINE,),
) -> Watch:  # fmt: skip
    """What came about at every place, over all of these and with each of these functions."""
    kind, groups, watch = architecture(config), grouped(config, given), Watch()
    shapes, told, turn = kind.parameters(config), set[tuple[int, str]](), 0
    total = len(shapes) * len(groups) * len(approximations)

    def tell(name: str) -> None:
        told.add((turn, name))
        progress("calibrating the model on texts", min(len(told), total), total)

    def spread(value: float) -> None:
        watch.more(watch.at("logits", head), value)

    model = kind.model(config, Reader(params, shapes, config.vocab_size, tell, spread))
    head = next((name for name, place in places(model).items() if place.kind == "logits"), "")
    formats.observe(model, watch)
    for approximation in approximations:
        for group in groups:
            with torch.no_grad():
                run(model, config, group, approximation)
            turn += 1
    return watch


def run(model: Any, config: Config, group: Sequence[text.Tokens], approximation: str) -> None:
    """One pass of all heads that the model has."""
    rows = torch.cat([torch.as_tensor(tokens.ids) for tokens in group])
    rows, asked = marked(rows, approximation), heads(config)
    lengths = [inputs(config).length(len(tokens.ids)) for tokens in group]
    if asked.scores:
        model.every(rows, Cache(config.layers, lengths))
        if getattr(model, "head_norm", None):  # what is asked for states goes through another norm
            model.states(rows, lengths)
    elif asked.generates:
        cache = Cache(config.layers, lengths)
        for _ in range(STEPS):
            rows = model(rows, cache).argmax(-1)
    else:
        states = model.states(rows, lengths, [*chain(*(tokens.types for tokens in group))])
        if asked.labels:
            model.classify(states, lengths)
        elif hasattr(model, "pool"):
            with suppress(UsageError):  # it has no pooler
                model.pool(states, lengths)
        if asked.pooling.dense or inputs(config).rows:  # images' vectors have norms of their own
            model.embed(states, lengths)
        if asked.predicts:
            model.predict(states, range(min(len(rows), FEWEST)))


def grouped(config: Config, given: Sequence[text.Tokens]) -> list[list[text.Tokens]]:
    """Those that go through the model together: as many as their scores leave room for; of a small model, those of
    about one length.
    """
    groups: list[list[text.Tokens]] = []
    longest, least = 0, _weights(config) < SMALL
    for tokens in sorted(given, key=lambda tokens: -len(tokens.ids)):
        length = inputs(config).length(len(tokens.ids))
        full = bool(groups) and (len(groups[-1]) + 1) * config.heads * longest**2 > SCORES
        if not groups or full or (least and 2 * length < longest):
            groups.append([])
            longest = length
        groups[-1].append(tokens)
    return groups


def cut(tokens: text.Tokens, length: int) -> text.Tokens:
    """The first ones."""
    return text.Tokens(tokens.ids[:length], tokens.types[:length])


def _length(config: Config, lengths: Sequence[int]) -> int:
    """To which texts are cut so that a pass over all of them stays within WORK."""
    most = min(MOST, max(FEWEST, WORK // _weights(config)))
    fitting = (cut for cut in LENGTHS if sum(min(cut, length) for length in lengths) <= most)
    return min(config.context, next(fitting, LENGTHS[-1]))


def _weights(config: Config) -> int:
    return sum(math.prod(shape) for shape in architecture(config).parameters(config).values())


def _encoded(model: ModelInfo, texts: Sequence[str]) -> Iterator[text.Tokens]:
    for one in texts:
        with suppress(InputError):  # an alphabet of a few signs has no word of it
            yield text.encode(model.tokenizer, model.config, one)


def _pairs(model: ModelInfo) -> Iterator[text.Tokens]:
    if inputs(model.config).types > 1:
        with suppress(InputError):
            yield text.encode(model.tokenizer, model.config, TEXTS[12], TEXTS[13])


def _chats(model: ModelInfo) -> Iterator[text.Tokens]:
    if not heads(model.config).generates:
        return
    for line in CHAT:
        with suppress(PumaError):  # too long for the context, or for a template that wants more than a line
            ids = Conversation(model).prompt_ids(line, 1)
            yield text.Tokens(ids, [0] * len(ids))


def _own(model: ModelInfo) -> Iterator[text.Tokens]:
    """Tokens of the model's own, one again and again and many in no order: whatever a prompt may hold."""
    length = min(OWN_LENGTH, model.config.context)
    yield text.Tokens([0] * length, [0] * length)
    for row in range(OWN):
        drawn = hashlib.shake_128(f"row {row}".encode()).digest(8 * length)
        ids = [int.from_bytes(drawn[8 * i : 8 * i + 8]) % model.config.vocab_size for i in range(length)]
        yield text.Tokens(ids, [0] * length)


def _pictures(model: ModelInfo, folder: Path, files: Sequence[str]) -> list[text.Tokens]:
    """The owner's images, and made-up ones: even, striped, chequered, smooth, and noise of several grains."""
    config: Any = model.config
    drawn = [images.read(file, folder) for file in files]
    for i in range(PICTURES):
        drawn.append(images.prepared(picture(i, config.image_size, config.channels), folder, "a made-up image"))
    return [text.Tokens(images.patches(config, pixels), []) for pixels in drawn]  # type: ignore[arg-type]


def _sounds(config: Config, files: Sequence[str]) -> list[text.Tokens]:
    """The first windows of the owner's files, and made-up ones: silence, noise, tones, sweeps, clicks and hums."""
    read = inputs(config)
    length = read.rows * STEP
    heard = [windows(files_of_sound.read(file), length)[0] for file in files]
    heard += [sound(i, length) for i in range(SOUNDS)]
    return [text.Tokens(spectrum(each, read.width, read.rows), []) for each in heard]  # type: ignore[arg-type]


def sound(number: int, length: int) -> Tensor:
    """A made-up sound (length,) of samples."""
    time = torch.arange(length) / RATE
    noise = torch.frombuffer(bytearray(hashlib.shake_128(bytes([number])).digest(length)), dtype=torch.uint8)
    noise = noise.float() / 128 - 1
    hum = torch.stack([(6.28 * 110 * (1 + number % 3) * k * time).sin() / k for k in range(1, 20)]).sum(0) / 3
    voice = hum * (0.5 + 0.5 * (6.28 * 4 * time).sin()) + 0.02 * noise
    kinds = (
        torch.zeros(length),
        0.9 * noise,
        0.001 * noise,
        0.8 * (6.28 * 440 * time).sin(),
        (6.28 * (50 + 1000 * time) * time).sin(),
        (6.28 * 200 * time).sin().sign() * 0.99,
        (torch.arange(length) % 4000 == 0).float(),
        voice,
        voice * (time < time[-1] / 3),
        0.05 * voice + 0.3 * (6.28 * 3000 * time).sin(),
    )
    return kinds[number % len(kinds)].clamp(-1, 1)


def picture(number: int, size: int, channels: int) -> Any:
    """A made-up image (size, size, channels) of bytes."""
    y, x = numpy.mgrid[0:size, 0:size] / size
    grain = 1 << (number // 2)
    noise = numpy.frombuffer(hashlib.shake_128(bytes([number])).digest(size * size), numpy.uint8).reshape(size, size)
    kinds = (
        numpy.zeros((size, size)),
        numpy.full((size, size), 255.0),
        255.0 * ((x * grain * 2).astype(int) % 2),
        255.0 * (((x * grain * 2).astype(int) + (y * grain * 2).astype(int)) % 2),
        255.0 * x,
        127.5 + 127.5 * numpy.sin(6.28 * (x * number + y)),
        255.0 * numpy.exp(-20 * ((x - 0.5) ** 2 + (y - 0.4) ** 2)),
        noise.astype(float),
        numpy.kron(noise[:: max(1, size // 8), :: max(1, size // 8)], numpy.ones((size, size)))[:size, :size] * 1.0,
    )
    shown = kinds[number % len(kinds)]
    shades = [shown if (number + c) % 3 else 255.0 - shown for c in range(channels)]
    return numpy.stack(shades, -1).astype(numpy.uint8)
