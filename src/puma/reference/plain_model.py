"""A model in the clear, at those who own it: what they check before they share, and what a secure answer is
compared with.

It turns text into token ids and back, and runs the same model on float tensors. It must not know shares,
parties or links.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from torch import Tensor

from puma.client.model_info import ModelInfo
from puma.client.sampling import Sampler, Sampling
from puma.client.sentences import USUAL, Asked, Reading
from puma.errors import UsageError
from puma.models import heads, images, inputs, text
from puma.models.checkpoint import Checkpoint, load
from puma.models.hearing import files
from puma.models.hearing.spectrum import STEP, spectrum, windows
from puma.models.ranges import check_hiding
from puma.nn.paper import SPLINE
from puma.reference import preamble
from puma.reference.float_session import Plain
from puma.reference.plan import Plan
from puma.reference.planning import Progress, Settings, planned

Params = Mapping[str, Tensor]


class PlainModel(ModelInfo):
    """A checkpoint and its tokenizer; `source` is a folder, a GGUF file, a hub name, or None for the
    embedded model, whose name is stories.

    `adapter` is a PEFT folder, or its name on the hub, which is merged into the checkpoint.
    """

    def __init__(self, source: str | Path | None = None, adapter: str | Path | None = None) -> None:
        self.made_of = source, adapter
        self.checkpoint: Checkpoint = load(source, adapter=adapter)
        found = self.checkpoint
        reads = inputs(found.config).tokenized or heads(found.config).generates
        tokenizer = found.open_tokenizer() if reads else None
        super().__init__(found.name, found.config, tokenizer, found.eos)
        self.files |= found.files
        self._plan: tuple[Settings, Plan] | None = None
        self._preamble: dict[str, Tensor] = {}  # keys and values of it

    def begin_with(self, message: str) -> None:
        """From now on prompts may begin with a system message that everybody knows, whose part is computed here and now
        and shared like weights: whoever asks so sends and pays for the rest alone. UsageError for a model that can have
        no such preamble, RangeError where fixed point cannot hold it."""
        self.config = preamble.with_preamble(self.config, preamble.tokens_of(self, message))
        self._preamble = preamble.computed(self.config, self.checkpoint.fold())
        for made in ("params", "plain", "session"):
            vars(self).pop(made, None)
        if self._plan is not None:
            preamble.check(self.config, self._preamble)

    @cached_property
    def params(self) -> Params:
        """What the owner shares: each is read and folded when it is looked up."""
        found = self.checkpoint.fold()
        return ChainMap(self._preamble, found) if self._preamble else found  # type: ignore[arg-type]

    @cached_property
    def plain(self) -> Params:
        """The same, all of it in memory, for the plain model."""
        return dict(self.params)

    def plan(
        self, settings: Settings | None = None, progress: Progress | None = None, approximation: str | None = None
    ) -> Plan:  # fmt: skip
        """Number formats that follow this model, which its `config` has from now on; made once and kept in the cache.

        Without `settings` the plan that there is serves, if it is for this approximation. RangeError, with the place,
        if fixed point cannot hold the model's numbers.
        """
        wanted = settings or (self._plan[0] if self._plan else Settings(approximations=(approximation or SPLINE,)))
        wanted = wanted.covering(approximation) if approximation else wanted
        if self._plan is None or self._plan[0] != wanted:
            self._plan = wanted, planned(self, self.checkpoint, wanted, progress or _silent)
            self.config = replace(self.config, formats=self._plan[1].formats)
            if self._preamble:
                preamble.check(self.config, self._preamble)
        return self._plan[1]

    @cached_property
    def session(self) -> Plain:
        """What answers token ids in float."""
        return Plain(self.config, self.plain)

    @property
    def causal(self) -> bool:
        """Whether it predicts the next token."""
        return heads(self.config).generates

    def check_hiding(self, hint: str) -> None:
        """CheckpointError if padding or hidden columns could be told from the answers; `hint` says what to do."""
        check_hiding(self.config, self.params, hint)

    def read(self, source: Any, pair: str | None = None) -> text.Tokens:
        """What the model reads, checked: token ids of a text or of two; the patches of an image, of its file or its
        numbers (pixel values, or bytes (height, width[, channels])).
        """
        return READERS[inputs(self.config).kind](self, source, pair)

    def reading(self, sentence: str, pair: str | None = None, asked: Asked = USUAL) -> Reading:
        """What is to be encoded, checked; of an image, its file's name is given."""
        if inputs(self.config).tokenized:
            return super().reading(sentence, pair, asked)
        self.check_encodes()
        return Reading(self.read(sentence, pair))

    def greedy(
        self, ids: Sequence[int], tokens: int, ruled: bool = False, begun: Sequence[int] = ()
    ) -> list[int]:  # fmt: skip
        """The most likely next tokens of one prompt, in float; if `ruled`, by the model's own rules. The answer begins
        with the tokens `begun`."""
        following = self.ruled([ids], begun) if ruled else None
        choose = Sampler(Sampling(), following) if following else None
        return [new for (new,) in self.session.continued([ids], tokens, choose, [begun] if begun else ())]

    def encoded(self, tokens: text.Tokens, asked: Asked = USUAL) -> Tensor:
        """Class logits or one vector, in float, of a text that was read as it is asked."""
        (found,) = self.session.encode([tokens.ids], self.output, [tokens.types], self.before(asked))
        return self.finished(found, asked)


def _silent(what: str, done: int, of: int) -> None:
    """No progress wanted."""


def _words(model: PlainModel, source: Any, pair: str | None) -> text.Tokens:
    """A text or two."""
    tokens = text.encode(model.tokenizer, model.config, source, pair)
    text.check_length(model.config, len(tokens.ids))
    return tokens


def _picture(model: PlainModel, source: Any, pair: str | None) -> text.Tokens:
    """An image: its file, its bytes or its pixel values."""
    if pair is not None:
        raise UsageError("an image has no second one to be compared with", "name one column")
    folder = model.checkpoint.folder
    if not isinstance(source, Tensor):
        source = images.read(source, folder) if isinstance(source, str) else images.prepared(source, folder, "this")
    return text.Tokens(images.patches(model.config, source), [])  # type: ignore[arg-type]


def _sound(model: PlainModel, source: Any, pair: str | None) -> text.Tokens:
    """The first window of sound: of a file, or of samples (n,)."""
    reads = inputs(model.config)
    samples = source if isinstance(source, Tensor) else files.read(source)
    (piece, *_) = windows(samples, reads.rows * STEP)
    return text.Tokens(spectrum(piece, reads.width, reads.rows), [])  # type: ignore[arg-type]


READERS = {"tokens": _words, "pixels": _picture, "audio": _sound}  # by the kinds of what architectures read
