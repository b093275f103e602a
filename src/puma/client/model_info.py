"""What everyone may know of a model: its config, its tokenizer, which tokens end a text. Clients work with no more.

It turns text into token ids and back. It must not know weights, shares or parties.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from puma.client.lengths import check_padding
from puma.client.rules import UNSEEN, Following, Rules
from puma.errors import InputError, RangeError, RulesWarning, UsageError
from puma.models import heads, inputs, text
from puma.models.config import Config
from puma.models.spelling import Spelling

MASKS = ("[MASK]", "<mask>")


class ModelInfo:
    """A model without its weights."""

    def __init__(self, name: str, config: Config, tokenizer: Tokenizer | None, eos: Sequence[int] = ()) -> None:
        self.name, self.config, self.eos = name, config, tuple(eos)
        self.tokenizer: Any = tokenizer  # None of an image model
        self.max_tokens: int | None = None  # of a request, prompts and answers together, where there is a limit
        self.hides = False  # whether its owner has proven that scores can be hidden in secret
        self.files: dict[str, Callable[[], bytes]] = {}  # what else travels with it, such as a chat template
        self._told = ""  # of rules that are not followed

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; empty where there is no classification head."""
        return heads(self.config).labels

    @property
    def output(self) -> str:
        """What an encoder is asked for: class logits if it can, else the token states' sum, or the first one's."""
        return "logits" if self.labels else "pooled"

    def prompt_ids(self, prompt: str, tokens: int, special: bool = True) -> list[int]:
        """Token ids of a prompt that is to be continued, checked against the context.

        Without `special`, the prompt holds its special tokens already, as a chat template leaves it.
        """
        self.check_generates()
        if tokens < 1:
            raise UsageError(f"cannot generate {tokens} tokens", "ask for at least one")
        ids = text.encode(self.tokenizer, self.config, prompt, special=special).ids
        self.check_length(len(ids), tokens)
        return ids

    def check_generates(self) -> None:
        """UsageError for a model that continues no text."""
        if not heads(self.config).generates:
            raise UsageError(f"{self.name} does not generate text", "use encode, or a LLaMA or GPT-2 model")

    @cached_property
    def rules(self) -> Rules:
        """What its generation_config.json asks of how tokens are chosen."""
        return Rules.of(self.files)

    def following(self, prompts: Sequence[Sequence[int]], reveals: bool) -> Following | None:
        """These rules for prompts that are about to be continued, if there are any; RulesWarning, once, about what is
        not followed. `reveals`: whether the client may see logits."""
        self.warn_of_rules("" if reveals else UNSEEN)
        return self.ruled(prompts) if reveals else None

    def ruled(self, prompts: Sequence[Sequence[int]]) -> Following | None:
        """The same without a word."""
        start = self.config.start if inputs(self.config).apart else None  # type: ignore[union-attr]
        return self.rules.following(prompts, start, self.eos)

    def warn_of_rules(self, why: str = "") -> None:
        """RulesWarning about rules that are not followed, unless the same has been said; `why` logits are of no use."""
        what = self.rules.unfollowed(why)
        if what not in ("", self._told):
            warnings.warn_explicit(what, RulesWarning, "puma.client", 1, registry={})
        self._told = what

    def check_length(self, prompt: int, tokens: int) -> None:
        """InputError for a prompt that with its new tokens is longer than the model's context, or than is allowed."""
        text.check_length(self.config, prompt, tokens)
        if self.max_tokens is not None and prompt + tokens > self.max_tokens:
            what = f"{tokens} new tokens after a prompt of {prompt} are more than the {self.max_tokens} of a request"
            raise InputError(what, "ask for fewer, or shorten the prompt; `puma cluster show` tells the limit")

    def sentence_ids(self, sentence: str, pair: str | None = None) -> text.Tokens:
        """Token ids of a text that is to be encoded, or of two, checked against the context."""
        self.check_encodes()
        tokens = text.encode(self.tokenizer, self.config, sentence, pair)
        text.check_length(self.config, len(tokens.ids))
        return tokens

    def check_encodes(self) -> None:
        """UsageError for a model that is asked for text, and not for states or classes."""
        if not heads(self.config).encodes:
            raise UsageError(f"{self.name} is no encoder", "use generate, or a BERT model")

    @cached_property
    def spelling(self) -> Spelling:
        """What each token stands for."""
        return Spelling(self.tokenizer, self.config.vocab_size)

    def check_padding(self, generates: bool = False) -> None:
        """UsageError or RangeError unless texts of secret length can be padded, to be encoded or to be continued."""
        check_padding(self.config, generates)
        self.check_hiding("make the lengths of texts public")

    def check_hiding(self, hint: str) -> None:
        """RangeError unless scores of padding or of other beams can be hidden, as the card says."""
        if not self.hides:
            raise RangeError(f"the scores of {self.name} may be too wide for hiding some in secret", hint)

    def masked_places(self, tokens: text.Tokens) -> list[int]:
        """Where a text has the token that stands for a hidden one."""
        if not heads(self.config).predicts:
            raise UsageError(f"{self.name} has no head for masked tokens", "use a ForMaskedLM checkpoint")
        mask = next((i for i in map(self.tokenizer.token_to_id, MASKS) if i is not None), None)
        places = [i for i, token in enumerate(tokens.ids) if token == mask]
        if not places:
            raise InputError("no token of the text is masked", f"write {' or '.join(MASKS)} in the place of one")
        return places

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids as text."""
        return text.decode(self.tokenizer, ids)

    def finished(self, values: Tensor) -> Tensor:
        """What `output` becomes at the client: the mean and the norm cost nothing in the clear."""
        return values if self.labels else values / torch.linalg.vector_norm(values)
