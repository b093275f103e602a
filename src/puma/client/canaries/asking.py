"""A request that means nothing and looks like others: random tokens, of lengths that a real one had or might have.

What the parties learn of it is what they learn of any. Answers are read without judging them: that is done
afterwards, by somebody who knows what they should have been. This file must not know whether it is a canary.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

import torch

from puma.client.session import Session
from puma.models import heads, inputs
from puma.models.config import Config
from puma.wire.messages import Encode, Generate, Input, Pace, Request

PROMPT, TOKENS = 16, 4  # unless something else is asked


def usual(config: Config, prompt: int = PROMPT, tokens: int = TOKENS) -> list[Request]:
    """The public words of a plain request: so many tokens of one prompt, or what the model's head is for."""
    read = inputs(config)
    job = Input([read.context] if read.rows else [min(prompt, read.context)], [])
    if heads(config).generates:
        return [Generate(job, tokens)]
    if heads(config).labels:
        return [Encode(job, "logits")]
    return [Encode(job, "tokens", rows=[0]) if heads(config).predicts else Encode(job, "pooled")]


def ask_like(session: Session, said: Sequence[Request], early: int = 0) -> None:
    """Ask a request of which this was `said` in public, with a prompt that is made up; so many of the words after the
    first came `early`, before a result was read."""
    first, *later = said
    config = session.served
    assert isinstance(first, Generate | Encode)
    prompts = made_up(config, first.input.lengths)
    hidden = {"lengths": "secret", "padded": first.input.lengths[0]} if first.input.padded else {}
    if isinstance(first, Encode):
        _encode(session, first, prompts, hidden)
        return
    more = sum(isinstance(word, Pace) and word.more for word in later)
    choose = (lambda logits: [int(row.argmax()) for row in logits]) if first.reveal else None
    early = 0 if first.reveal else max(0, early)
    begun = _tokens(config.vocab_size, [first.input.begun] * len(prompts)) if first.input.begun else ()
    how = (first.tokens, first.paced, choose, first.temperature, early)
    steps = session.continued(prompts, *how, begun=begun, **hidden)  # type: ignore[arg-type]
    for count, _ in enumerate(steps, 1):
        if first.paced and count > more - early:
            steps.close()


def _encode(session: Session, like: Encode, prompts: list[list[int]], hidden: dict[str, object]) -> None:
    cuts = list(pairwise([0, *accumulate(like.input.lengths)]))
    types = [like.input.types[low:high] for low, high in cuts] if like.input.types else []
    if like.output == "tokens":
        masked = [[row - low for row in like.rows if low <= row < high] for low, high in cuts]
        session.fill(prompts, masked, like.top, types, **hidden)  # type: ignore[arg-type]
        return
    session.encode(prompts, like.output, types, like.skip, **hidden)  # type: ignore[arg-type]


def made_up(config: Config, lengths: Sequence[int]) -> list[list[int]]:
    """Random tokens, or rows of pixels, of inputs of these lengths."""
    read = inputs(config)
    if not read.tokenized:
        return [_noise(read.width, read.rows) for _ in lengths]  # type: ignore[misc]
    return _tokens(read.width, lengths, (read.barred, read.padding))


def _tokens(vocabulary: int, lengths: Sequence[int], but: Sequence[int | None] = ()) -> list[list[int]]:
    """Of these lengths, even over the vocabulary but for some."""
    octets = chain.from_iterable(iter(lambda: os.urandom(4096), b""))
    drawn = (int.from_bytes(each) % vocabulary for each in zip(octets, octets, octets, octets, strict=False))
    kept = (token for token in drawn if token not in but)
    return [[next(kept) for _ in range(length)] for length in lengths]


def _noise(width: int, rows: int) -> torch.Tensor:
    octets = torch.tensor(list(os.urandom(rows * width)), dtype=torch.uint8)
    return octets.reshape(rows, width).double() / 128 - 1
