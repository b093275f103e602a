"""A session with nobody, in float: what a model answers by torch's functions, or by another profile's as polynomials.

It answers what `Session` answers, so that whoever compares need not know which is which. This file must not know
shares or links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from puma.client.beam_search import Beams
from puma.client.cost import Cost
from puma.client.places import by_place, places
from puma.models import Cache, architecture, heads
from puma.models.config import Config
from puma.nn.paper import SPLINE, marked
from puma.wire.inputs import laid_out, plain
from puma.wire.messages import NEXT
from puma.wire.request_shapes import by_token

Choose = Callable[[Tensor], list[int]]  # from the logits of each prompt, its next token


class Plain:
    """A model in float32; with an approximation other than "spline" its functions are those published."""

    def __init__(self, config: Config, params: Mapping[str, Tensor], approximation: str = SPLINE) -> None:
        self.config, self.approximation = config, approximation
        self._model = architecture(config).model(config, params)
        self.cost: Cost | None = None  # nothing is sent

    def continued(
        self, prompts: Sequence[Sequence[int]], tokens: int, choose: Choose | None = None,
        begun: Sequence[Sequence[int]] = (),
    ) -> Iterator[list[int]]:  # fmt: skip
        """The most likely token of each prompt that is allowed, or what `choose` makes of their logits."""
        if choose is None:
            for found, _ in self.ranked(prompts, tokens, begun):
                yield found
            return
        feed, cache = self._given(prompts, begun)
        for _ in range(tokens):
            chosen = choose(self._model(feed, cache).as_subclass(Tensor).double())
            yield chosen
            feed = self._rows(chosen)

    def ranked(
        self, prompts: Sequence[Sequence[int]], tokens: int, begun: Sequence[Sequence[int]] = ()
    ) -> Iterator[tuple[list[int], list[float]]]:
        """With each token, by how much its logit exceeds the second one."""
        feed, cache = self._given(prompts, begun)
        for step in range(tokens):
            best = self._allowed(self._model(feed, cache).as_subclass(Tensor), step == 0).topk(2)
            found = best.indices[:, 0].tolist()
            yield found, (best.values[:, 0] - best.values[:, 1]).tolist()
            feed = self._rows(found)

    def search(
        self, prompt: Sequence[int], beams: Beams, stop: bool = False, begun: Sequence[int] = ()
    ) -> Iterator[int]:  # fmt: skip
        """A beam search, by the branches that three parties compute; yield how many steps are done.

        With `stop` it ends when nothing better can come.
        """
        feed, cache = self._given([prompt], [begun] if begun else ())
        chosen = beams.choose(self._model(feed, cache).as_subclass(Tensor).double())
        yield beams.steps
        while beams.steps < beams.tokens and not (stop and beams.over):
            cache.branch(torch.tensor(beams.hidden()).reshape(beams.count, -1).float())
            chosen = beams.choose(self._model(self._rows(chosen), cache).as_subclass(Tensor).double())
            yield beams.steps

    def _given(self, prompts: Sequence[Any], begun: Sequence[Sequence[int]]) -> tuple[Any, Cache]:
        """What the model is given first, and where it keeps what it has read."""
        laid = laid_out(self.config, prompts, begun=begun)
        return plain(laid, lambda rows: marked(rows, self.approximation)), Cache(self.config.layers, laid.lengths)

    def encode(
        self, prompts: Sequence[Sequence[int]], output: str, types: Sequence[Sequence[int]] = (), skip: int = 0
    ) -> list[Tensor]:
        """Of each prompt hidden states, its vector, class logits or every next token's logits, as float64."""
        laid = laid_out(self.config, prompts)
        rows, lengths = marked(laid.rows, self.approximation), laid.lengths
        with torch.no_grad():
            if output == NEXT:
                states = self._model.every(rows, Cache(self.config.layers, lengths))
            else:
                states = self._model.states(rows, lengths, [*chain(*types)])
            result = self._output(states, output, lengths, skip).as_subclass(Tensor).double()
        return list(result.split(lengths) if by_token(self.config, output) else result)

    def fill(
        self, prompts: Sequence[Sequence[int]], masked: Sequence[Sequence[int]], top: int = 1,
        types: Sequence[Sequence[int]] = (),
    ) -> list[list[list[int]]]:  # fmt: skip
        """Of each prompt, for each of its masked places, the `top` most likely tokens, best first."""
        rows, lengths = places(prompts, masked), [len(ids) for ids in prompts]
        with torch.no_grad():
            states = self._model(self._rows([*chain(*prompts)]), [*chain(*types)] or None, lengths)
            found = self._model.predict(states, rows).as_subclass(Tensor).topk(top).indices
        return by_place(found.T.tolist(), masked)

    def _output(self, states: Any, output: str, lengths: list[int], skip: int) -> Any:
        if output == "pooled":
            return self._model.embed(states, lengths, skip)
        return self._model.classify(states, lengths) if output == "logits" else states

    def _allowed(self, logits: Tensor, first: bool) -> Tensor:
        """The same, minus infinity for tokens that are never chosen, or not at the beginning of an answer."""
        asked = heads(self.config)
        barred = asked.barred + (asked.barred_first if first else ())
        return logits.index_fill(-1, torch.tensor(barred), -torch.inf) if barred else logits

    def _rows(self, ids: Sequence[int]) -> Tensor:
        return marked(torch.tensor(list(ids)), self.approximation)
