"""Measuring a request: a model of any published shape with public random weights, three processes.

The weights come from a public key, so that everybody measures the same numbers and nobody downloads any. They
hide nothing; in the run the owner's fresh randomness hides them. This file must not know how a party works.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import torch
from torch import Tensor

from puma.client.cost import Cost
from puma.client.owner import Progress
from puma.client.public.content import parts
from puma.client.session import Session
from puma.crypto.prg import PairKey
from puma.local.cluster import Trio
from puma.measure.named import bare, config_of
from puma.models import architecture, in_the_open, inputs, ranges, with_layers
from puma.models.checkpoint import load
from puma.models.config import Config
from puma.models.formats import places
from puma.models.presets import PRESETS
from puma.models.text import Tokens
from puma.reference.calibration import observe
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.reference.plan import Calibration, made
from puma.reference.planning import Settings
from puma.wire.messages import Encode, Generate

PUBLIC = PairKey(b"puma bench: public random number")
STD = 0.02  # of matrices and tables, as models are initialised
QUERIES = (".q_proj.", ".query.")  # these have absorbed 1/sqrt(head_dim)
REPEATED_ABOVE = 1_000_000_000  # parameters: what three parties and an owner can hold on one machine
LAYER = re.compile(r"\.\d+\.")
MEMORY = "/dev/shm"  # what is prepared must not reach a disk
FITTED_TEXTS, FITTED_LENGTH = 4, 32  # random tokens that formats for random weights follow
PLAIN_RUNS = 3
WARM_UP = 2  # tokens of the request before the timed one


def random_tensor(config: Config, name: str, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers; the same name and shape always give the same tensor."""
    raw = PUBLIC.stream(f"weight {name}").bytes(4 * math.prod(shape)).view(torch.int32)
    uniform = raw.to(torch.float32).mul_(STD * math.sqrt(3) / 2**31).reshape(shape)
    if any(query in name for query in QUERIES):
        return uniform.mul_(config.head_dim**-0.5)
    return uniform.add_(1.0) if len(shape) == 1 and name.endswith(".weight") else uniform


class RandomParams(Mapping[str, Tensor]):
    """Parameters drawn when asked for and not kept: sharing them needs the memory of one tensor.

    In models above REPEATED_ABOVE parameters layers are the first one, as far as they are like it: `alias` says of whom
    each parameter is a repetition.
    With `halves` matrices are rounded to bfloat16, as they lie in files of published models.
    """

    def __init__(self, config: Config, halves: bool = False) -> None:
        self._config, self._halves = config, halves
        self._shapes = architecture(config).parameters(config)
        self.alias: dict[str, str] = {}
        if sum(math.prod(shape) for shape in self._shapes.values()) > REPEATED_ABOVE:
            first = {name: LAYER.sub(".0.", name, count=1) for name in self._shapes}
            alike = {name: source for name, source in first.items() if self._shapes.get(source) == self._shapes[name]}
            self.alias = {name: source for name, source in alike.items() if name != source}

    def __getitem__(self, name: str) -> Tensor:
        found = random_tensor(self._config, self.alias.get(name, name), self._shapes[name])
        return found.to(torch.bfloat16).float() if self._halves and found.dim() == 2 else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def random_ids(config: Config, lengths: Sequence[int]) -> list[list[int]]:
    """Token ids of prompts of these lengths, from the same public key."""
    ids = (PUBLIC.stream("tokens").words(sum(lengths)) & (2**62 - 1)).remainder(config.vocab_size)
    return [prompt.tolist() for prompt in ids.split(list(lengths))]


def random_inputs(config: Config, lengths: Sequence[int]) -> list[Any]:
    """What a model of this config reads, from the same key: token ids, or rows of numbers between -1 and 1."""
    read = inputs(config)
    if read.tokenized:
        return random_ids(config, lengths)
    shape = (len(lengths), read.rows, read.width)
    raw = PUBLIC.stream(read.kind).bytes(4 * math.prod(shape)).view(torch.int32)
    return list(raw.to(torch.float32).div(2**31).reshape(shape))


def configured(
    source: str, layers: int | None, weights: bool = True, adapter: str | None = None, halves: bool = False
) -> tuple[str, Config, Mapping[str, Tensor]]:
    """Name, config and parameters of a preset, a config.json or a checkpoint, perhaps of its first layers only.

    Parameters are random where there are none, `halves` if so asked.
    """
    name, config = config_of(source, layers, adapter)
    if source in PRESETS or bare(source):
        return name, config, RandomParams(config, halves)
    if not weights:
        return name, config, {}
    checkpoint = load(source, adapter=adapter)  # its tensors tell of settings, too
    checkpoint = replace(checkpoint, config=with_layers(checkpoint.config, layers)) if layers else checkpoint
    return checkpoint.name, checkpoint.config, checkpoint.fold()


def fitted(
    source: str, config: Config, params: Mapping[str, Tensor], settings: Settings, progress: Progress,
    adapter: str | None = None,
) -> Config:  # fmt: skip
    """The config of `configured` with formats by a plan: a checkpoint's own, of a preset one that holds its random
    weights, calibrated on random tokens. RangeError, with the place, if fixed point cannot hold the numbers."""
    if source in PRESETS or bare(source):
        length = min(FITTED_LENGTH, inputs(config).context)
        given = [Tokens(one, [0] * len(one)) for one in random_inputs(config, [length] * FITTED_TEXTS)]
        kinds = {name: place.kind for name, place in places(architecture(config).model(config)).items()}
        seen = Calibration(
            observe(config, params, given, progress, settings.approximations), len(given), len(given) * length
        )
        found = made(
            kinds, ranges.bounds(config, params), seen, settings.margin, settings.coarse, ranges.score_cap(config)
        )
        return msgspec.structs.replace(config, formats=found.formats)
    model = PlainModel(source, adapter)
    model.plan(settings, progress)
    layers = architecture(config).layers(config)
    whole = architecture(config).layers(model.config)
    return model.config if layers == whole else with_layers(model.config, layers)


@dataclass(frozen=True)
class Timed:
    """Wall-clock seconds of a request at the client, and what it cost."""

    seconds: float
    cost: Cost


@dataclass(frozen=True)
class Measurement:
    """Wall-clock seconds at the client, what it cost, the largest error of a hidden state, and whether all layers had
    the same weights."""

    seconds: float
    cost: Cost
    max_abs_error: float | None
    repeated: bool
    prepared: Timed | None
    plain_seconds: float | None = None  # of the same request by torch in float32, with as many cores as it takes


def measure(
    config: Config, params: Mapping[str, Tensor], request: Generate | Encode, error: bool, progress: Progress,
    prepared: bool = False, open_weights: bool = False, threads: int | None = None,
) -> Measurement:  # fmt: skip
    """Share the model, warm up, time one request, then compare hidden states with the plain run.

    With `prepared` the request is then prepared and timed again. With `open_weights` the parties get the weights as
    they are. `threads` are those of each party.
    """
    prompts = random_inputs(config, request.input.lengths)
    tokens = request.tokens if isinstance(request, Generate) else None
    alias: dict[str, str] = getattr(params, "alias", {})
    with ExitStack() as stack:
        store = stack.enter_context(TemporaryDirectory(prefix="puma-", dir=MEMORY)) if prepared else None
        trio = stack.enter_context(Trio(progress, store, approximation=request.input.approximation, threads=threads))
        trio.session.variants = ",".join(request.input.quick) or "lean"
        if open_weights:
            config = in_the_open(config)
            trio.open_up(config, parts(config, params, alias), progress, alias)
        else:
            trio.share(config, params, progress, alias)
        progress("warming up", 0, 1)
        few = [ids[:WARM_UP] for ids in prompts] if inputs(config).tokenized else prompts[:1]  # images are whole
        ask(trio.session, few, min(tokens, WARM_UP) if tokens else None)
        progress("the timed request", 0, 1)
        usual, states = _timed(trio.session, prompts, tokens)
        again = None
        if prepared:
            progress("preparing", 0, 1)
            trio.session.prepare(request)
            progress("the prepared request", 0, 1)
            again, states = _timed(trio.session, prompts, tokens)
        if error and states is None:
            progress("hidden states", 0, 1)
            states = trio.session.encode(prompts, "hidden")
    far, took = None, None
    if error and states is not None:
        progress("the plain run", 0, 1)
        plain = in_the_clear(config, params)
        far = max(float((x - y).abs().max()) for x, y in zip(states, plain.encode(prompts, "hidden"), strict=True))
        took = plainly(plain, prompts, tokens)
    return Measurement(usual.seconds, usual.cost, far, bool(alias), again, took)


def in_the_clear(config: Config, params: Mapping[str, Tensor]) -> Plain:
    """The plain model; layers that repeat one have its tensors, not copies."""
    alias: dict[str, str] = getattr(params, "alias", {})
    sources = {source: params[source] for source in params if source not in alias}
    return Plain(config, {name: sources[alias.get(name, name)] for name in params})


def plainly(plain: Plain, prompts: Sequence[Any], tokens: int | None, runs: int = PLAIN_RUNS) -> float:
    """Seconds of the same request in the clear, in float32 on all cores: the least of so many runs."""
    seconds = list[float]()
    for _ in range(runs):
        started = time.perf_counter()
        ask(plain, prompts, tokens)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _timed(session: Session, prompts: Sequence[Any], tokens: int | None) -> tuple[Timed, list[Tensor] | None]:
    started = time.perf_counter()
    states = ask(session, prompts, tokens)
    seconds = time.perf_counter() - started
    assert session.cost is not None
    return Timed(seconds, session.cost), states


def ask(session: Session | Plain, prompts: Sequence[Any], tokens: int | None) -> list[Tensor] | None:
    """Hidden states of an encoder, or new tokens, which nobody reads."""
    if tokens is None:
        return session.encode(prompts, "hidden")
    begun = inputs(session.config).begun if session.config is not None else 0  # as its clients usually ask
    for _ in session.continued(prompts, tokens, begun=[[0] * begun] * len(prompts) if begun else ()):
        pass
    return None
