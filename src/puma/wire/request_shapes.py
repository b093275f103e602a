"""Requests known by their shape alone: those that are counted, measured and prepared ahead.

This file must not know a link or a token.
"""

from __future__ import annotations

from puma.errors import UsageError
from puma.models import heads, inputs
from puma.models.config import Config
from puma.models.text import check_batch
from puma.wire.messages import EVERY_TOKEN, Encode, Generate, Input


def by_token(config: Config, output: str) -> bool:
    """Whether this output has a row for each token, rather than one for each text or image."""
    return output in EVERY_TOKEN or (output == "logits" and heads(config).each_token)


def shaped(
    config: Config, prompt: int | None, tokens: int | None, batch: int = 1, approximation: str = "spline",
    quick: tuple[str, ...] = (),
) -> Generate | Encode:  # fmt: skip
    """The request that is measured: new tokens of a causal model, hidden states of an encoder; `batch` prompts, or
    windows of sound, however long a `prompt` is said to be, or images, which have none."""
    read = inputs(config)
    if read.rows and heads(config).encodes and prompt is not None:
        raise UsageError("an image model has no prompt to count", "leave out the length of one")
    prompt = read.context if read.rows else prompt
    if prompt is None:
        raise UsageError("how long is the prompt?", "pass --prompt and its length in tokens")
    lengths = [prompt] * max(batch, 0)
    if batch < 1:
        raise UsageError(f"a batch of {batch} prompts makes no sense", "pass --batch 1 or more")
    if prompt < 1:
        raise UsageError(f"a prompt of {prompt} tokens makes no sense", "pass --prompt 1 or more")
    if heads(config).encodes:
        if tokens is not None:
            raise UsageError("an encoder generates no tokens", "leave out --tokens")
        check_batch(config, lengths)
        return Encode(Input(lengths, [], approximation=approximation, quick=quick), "hidden")
    tokens = 1 if tokens is None else tokens
    if tokens < 1:
        raise UsageError(f"cannot generate {tokens} tokens", "pass --tokens 1 or more")
    check_batch(config, lengths, tokens + read.begun)
    return Generate(Input(lengths, [], approximation=approximation, begun=read.begun, quick=quick), tokens)
