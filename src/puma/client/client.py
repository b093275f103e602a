"""What a client can ask a model, wherever its parties run: text in, text or numbers out.

It must not know where the session leads to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, overload

from torch import Tensor

from puma.client.beam_search import Beams
from puma.client.model_info import ModelInfo
from puma.client.sampling import Sampling
from puma.client.session import Cost, Session
from puma.errors import UsageError
from puma.store.prepared_requests import PreparedRequest
from puma.wire.messages import Encode, Input
from puma.wire.request_shapes import shaped

Stop = Literal["eos"] | None


@dataclass(frozen=True)
class Answer:
    """Generated text, its token ids and what the request cost, together with the other prompts in it."""

    text: str
    token_ids: list[int]
    cost: Cost


@dataclass(frozen=True)
class Encoding:
    """A normalised sentence embedding, or class logits, and what the request cost, with the other texts in it."""

    values: Tensor
    cost: Cost


class Client(ABC):
    """The questions. A subclass says which model and which session; `close` ends both."""

    model: ModelInfo

    @property
    @abstractmethod
    def session(self) -> Session: ...

    @abstractmethod
    def close(self) -> None: ...

    def stream(self, prompt: str, tokens: int = 32, stop: Stop = None, **sampling: Any) -> Iterator[int]:
        """Token ids as they are decided; `cost` afterwards. `stop` and `sampling` are as for `generate`."""
        return self.continued(self.model.prompt_ids(prompt, tokens), tokens, stop, **sampling)

    def continued(self, ids: Sequence[int], tokens: int, stop: Stop = None, **sampling: Any) -> Iterator[int]:
        """The same for a prompt that is token ids already."""
        return (new for (new,) in self._steps([ids], tokens, stop, sampling))

    @overload
    def generate(self, prompt: str, tokens: int = 32, stop: Stop = None, **sampling: Any) -> Answer: ...

    @overload
    def generate(self, prompt: Sequence[str], tokens: int = 32, stop: Stop = None, **sampling: Any) -> list[Answer]: ...

    def generate(
        self, prompt: str | Sequence[str], tokens: int = 32, stop: Stop = None, **sampling: Any
    ) -> Answer | list[Answer]:
        """Continuation by a public number of tokens: of a prompt, or of several in one request.

        Greedy, unless `sampling` names a temperature, top_k, top_p or seed; the last three need logits, which the
        model's owner must let clients see. With `stop="eos"` it ends earlier where the text ends. After each token the
        parties then wait for the client's word, one more round trip, and they learn how long the answer is (the longest
        one, of several prompts).
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        steps = list(self._steps([self.model.prompt_ids(p, tokens) for p in prompts], tokens, stop, sampling))
        found = [self._ended(list(new)) if stop else list(new) for new in zip(*steps)]
        answers = [Answer(self.decode(new), new, self.cost) for new in found]
        return answers[0] if isinstance(prompt, str) else answers

    def _steps(
        self, prompts: Sequence[Sequence[int]], tokens: int, stop: Stop, sampling: dict[str, Any]
    ) -> Iterator[list[int]]:
        asked, ended = self.session.asked(Sampling.asked(**sampling)), self._until(stop, len(prompts))
        with closing(self.session.generate(prompts, tokens, paced=ended is not None, **asked)) as steps:
            for step in steps:
                over = ended is not None and ended(step)
                if over:
                    steps.close()
                yield step
                if over:
                    return

    def _until(self, stop: Stop, prompts: int) -> Callable[[Sequence[int]], bool] | None:
        """Whether all of these prompts have come to their end, asked after each step; None to go on regardless."""
        if stop is None:
            return None
        if stop != "eos":
            raise UsageError(f"cannot stop at {stop!r}", "choose eos, or leave it out")
        if not self.model.eos:
            raise UsageError(f"{self.model.name} names no token that ends a text", "ask for a fixed number of tokens")
        over = [False] * prompts

        def ended(step: Sequence[int]) -> bool:
            over[:] = [before or new in self.model.eos for before, new in zip(over, step)]
            return all(over)

        return ended

    def _ended(self, ids: list[int]) -> list[int]:
        """Up to the token that ends the text, and with it."""
        last = next((i for i, new in enumerate(ids) if new in self.model.eos), len(ids))
        return ids[: last + 1]

    def search(
        self, prompt: str, tokens: int = 32, beams: int = 4, length_penalty: float = 1.0, stop: Stop = None,
        progress: Callable[[int], None] | None = None,
    ) -> Answer:  # fmt: skip
        """The continuation that a beam search finds, of up to so many tokens; it needs logits, see `generate`.

        It ends where the text ends, and the parties learn that with `stop="eos"` only. `progress` is told each step.
        """
        found = Beams(beams, tokens, self.model.eos, length_penalty)
        self.model.check_hiding("search greedily")
        until = self._until(stop, 1) is not None
        for step in self.session.search(self.model.prompt_ids(prompt, tokens), found, until):
            if progress:
                progress(step)
        return Answer(self.decode(found.best), found.best, self.cost)

    @overload
    def encode(self, sentence: str, lengths: str = "public", padded: int = 0) -> Encoding: ...

    @overload
    def encode(self, sentence: Sequence[str], lengths: str = "public", padded: int = 0) -> list[Encoding]: ...

    def encode(
        self, sentence: str | Sequence[str], lengths: str = "public", padded: int = 0
    ) -> Encoding | list[Encoding]:
        """Class logits if the model has a classification head, else the mean of the token states, normalised.

        Of a sentence, or of several in one request. The parties learn how many tokens each has, unless `lengths` is
        "secret": then a common length that all are padded to, the next power of two or `padded`.
        """
        self._check_lengths(lengths)
        tokens = [self.model.sentence_ids(s) for s in ([sentence] if isinstance(sentence, str) else sentence)]
        values = self.session.encode(
            [t.ids for t in tokens], self.model.output, [t.types for t in tokens], lengths, padded
        )
        encodings = [Encoding(self.model.finished(x), self.cost) for x in values]
        return encodings[0] if isinstance(sentence, str) else encodings

    def _check_lengths(self, lengths: str) -> None:
        if lengths not in ("public", "secret"):
            raise UsageError(f"lengths cannot be {lengths}", "choose public or secret")
        if lengths == "secret":
            self.model.check_padding()

    def fill(self, text: str, top: int = 5, lengths: str = "public", padded: int = 0) -> list[list[str]]:
        """The most likely tokens at each place of a text that says [MASK] or <mask>, best first.

        The parties learn the places, and nothing of the tokens; `lengths` and `padded` are as for `encode`.
        """
        self._check_lengths(lengths)
        tokens = self.model.sentence_ids(text)
        places = [self.model.masked_places(tokens)]
        (found,) = self.session.fill([tokens.ids], places, top, [tokens.types], lengths, padded)
        return [[self.decode([token]) for token in ranked] for ranked in found]

    def prepare(self, prompt: int, tokens: int | None = None, batch: int = 1) -> PreparedRequest:
        """Let the parties do ahead what a request of this shape needs no input for: prompts of a length, new tokens.

        An encoder takes no `tokens`. The next request of exactly this shape uses it up, in this cluster or a later one
        with the same store.
        """
        request = shaped(self.model.config, prompt, tokens, batch)
        if isinstance(request, Encode):
            request = Encode(Input(request.input.lengths, [], [], [0] * request.input.tokens), self.model.output)
        return self.session.prepare(request)

    def decode(self, ids: Sequence[int]) -> str:
        return self.model.decode(ids)

    @property
    def cost(self) -> Cost:
        """What the last request cost."""
        if self.session.cost is None:
            raise UsageError("no request has finished yet", "run generate or encode first")
        return self.session.cost
