"""A session with nobody: the parties' fixed-point computation in this process, in the clear, for sweeps and checks.

It answers what `Session` answers, by the engine that parties run, and knows how near every place came to its limits.
Only for whoever may see model and prompts. This file must not know links or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from msgspec.structs import replace
from torch import Tensor

from puma.client.cost import Cost
from puma.client.places import by_place, places
from puma.engine.admission import OWNER, admit
from puma.engine.engine import Engine
from puma.engine.generation import run
from puma.models import inputs
from puma.models.config import Config
from puma.mpc.clear import Clear, ClearParty, Note, held
from puma.mpc.share import Share, encode
from puma.wire.answers import answers
from puma.wire.inputs import in_clear, laid_out
from puma.wire.messages import Encode, Generate, Input
from puma.wire.parameters import tensor_specs
from puma.wire.request_shapes import by_token


class FixedSession:
    """A model in fixed point; `alias` names parameters that are another one, as in `Session.share`."""

    def __init__(
        self, config: Config, params: Mapping[str, Tensor], approximation: str = "spline",
        alias: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.config, self.approximation = config, approximation
        self.party = ClearParty(approximation)
        alias, shares = dict(alias or {}), dict[str, Share]()
        for spec in tensor_specs(config):
            if spec.name not in alias:
                words = encode(params[spec.name], spec.frac)
                shares[spec.name] = held(self.party, words, spec.bits, spec.frac, _module(spec.name))  # type: ignore[arg-type]
        shares |= {name: _renamed(shares[source], name) for name, source in alias.items()}
        self.engine = Engine(self.party, config, shares)
        self.cost: Cost | None = None  # nothing is sent
        self.flagged: list[int] = []  # prompts of the latest request of which a number has left its reach

    @property
    def notes(self) -> list[Note]:
        """How near each place came to its limit, in the order of the computation."""
        return list(self.party.notes.values())

    def continued(
        self, prompts: Sequence[Sequence[int]], tokens: int, begun: Sequence[Sequence[int]] = ()
    ) -> Iterator[list[int]]:
        """The next token of each prompt, step by step, of answers that begin so."""
        job = Generate(replace(self._input(prompts), begun=len(begun[0]) if begun else 0), tokens)
        admit(self.config, self.approximation, job, OWNER)
        yield from ([int(i) % (1 << share.bits) for i in share.m] for share in self._emitted(job, prompts, begun))

    def encode(
        self, prompts: Sequence[Sequence[int]], output: str, types: Sequence[Sequence[int]] = (), skip: int = 0
    ) -> list[Tensor]:
        """Of each prompt what a party's engine gives, as float64."""
        job = Encode(self._input(prompts, types), output, skip=skip)
        (result,) = self._emitted(job, prompts)
        return list(result.value.split(job.input.lengths) if by_token(self.config, output) else result.value)

    def fill(
        self, prompts: Sequence[Sequence[int]], masked: Sequence[Sequence[int]], top: int = 1,
        types: Sequence[Sequence[int]] = (),
    ) -> list[list[list[int]]]:  # fmt: skip
        """Of each prompt, for each of its masked places, the `top` most likely tokens, best first."""
        rows = places(prompts, masked)
        found = self._emitted(Encode(self._input(prompts, types), "tokens", rows=rows, top=top), prompts)
        return by_place([[int(i) % (1 << share.bits) for i in share.m] for share in found], masked)

    def _emitted(
        self, job: Encode | Generate, prompts: Sequence[Any], begun: Sequence[Sequence[int]] = ()
    ) -> list[Clear]:  # fmt: skip
        """What a party's engine answers, and in `flagged` what it says of the prompts."""
        admit(self.config, self.approximation, job, OWNER)
        found, flagged = list[Clear](), set[int]()
        wanted = [(False, True) if answer.flagged else (False,) for answer in answers(self.config, job)]
        flags = chain(*wanted)

        def emit(share: Share) -> None:
            assert isinstance(share, Clear)
            if next(flags):
                flagged.update(share.signed.nonzero().flatten().tolist())
            else:
                found.append(share)

        run(self.engine, job, in_clear(self.config, self.party, laid_out(self.config, prompts, begun=begun)), emit)
        self.flagged = sorted(flagged)
        return found

    def _input(self, prompts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] = ()) -> Input:
        lengths = [inputs(self.config).length(len(ids)) for ids in prompts]
        return Input(lengths, [], [], [*chain(*types)], approximation=self.approximation)


def _module(name: str) -> str:
    return name.removesuffix(".weight").removesuffix(".bias")


def _renamed(share: Share, name: str) -> Share:
    assert isinstance(share, Clear)
    result = share.apply(lambda t: t)
    result.source = result.source._replace(name=_module(name))
    return result
