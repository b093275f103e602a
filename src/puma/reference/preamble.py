"""A preamble: tokens that everybody knows and with which prompts may begin, such as a system message, computed once.

Whoever owns a model runs it over them in the clear, and shares keys and values as it shares weights: so they are masked
like weights, by the owner's seeds, and the parties never compute them. Public of it are the tokens alone. It must not
know shares or links.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor

from puma.client.chat.format import chat_format
from puma.client.model_info import ModelInfo
from puma.client.tokens.remembered import LEAST, common
from puma.errors import RangeError, UsageError
from puma.models import Cache, architecture, heads, preamble
from puma.models.config import Config
from puma.models.fields import MOST_PREAMBLE, PREAMBLE
from puma.reference.observed import Reader

ROOM = 15 / 16  # of a value's reach, as for every other value
SAID = "Hello", "What is this?"  # by two users, whose prompts have the preamble in common


def tokens_of(model: ModelInfo, message: str) -> tuple[int, ...]:
    """What all prompts begin with that have this system message by the model's chat template; without a template, the
    message's own tokens. InputError where they leave no room for an answer, UsageError where there are few."""
    form = chat_format(model)
    if form.templated:
        said = [[{"role": "system", "content": message}, {"role": "user", "content": each}] for each in SAID]
        one, other = (model.prompt_ids(form.render(each), 1, special=False) for each in said)
        ids = one[: common(one, other)]
    else:
        ids = model.prompt_ids(message, 1)
    if not LEAST <= len(ids) <= MOST_PREAMBLE:
        what = f"a preamble of {len(ids)} tokens saves nothing" if len(ids) < LEAST else "the preamble is too long"
        raise UsageError(what, f"it has from {LEAST} to {MOST_PREAMBLE} tokens")
    return tuple(ids)


def with_preamble(config: Config, ids: Sequence[int]) -> Config:
    """The same model for prompts that may begin with these tokens; UsageError where it can have no preamble."""
    if not heads(config).generates or preamble(config) is None:
        raise UsageError("the model has no use for a preamble", "share it without one")
    decoder: Any = config
    try:
        return replace(decoder, preamble=tuple(ids))
    except ValueError as error:
        raise UsageError(str(error), "share it without a preamble") from None


def computed(config: Any, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys and values of the preamble's tokens by the names of their parameters, (tokens, heads * head_dim) each; each
    weight is read once."""
    known, bare = config.preamble, replace(config, preamble=())
    kind = architecture(bare)
    model = kind.model(bare, Reader(params, kind.parameters(bare), bare.vocab_size, _unheard, _unheard))
    cache = Cache(bare.layers, [len(known)])
    with torch.no_grad():
        model(torch.tensor(known), cache)
    found = dict[str, Tensor]()
    for number, layer in enumerate(cache.layers):
        for name, columns in (("preamble_keys", layer.k), ("preamble_values", layer.v)):
            rows = columns.as_subclass(Tensor)[0].transpose(0, 1).flatten(1)
            found[f"model.layers.{number}.self_attn.{name}{PREAMBLE}"] = rows.contiguous()
    return found


def check(config: Config, found: Mapping[str, Tensor]) -> None:
    """RangeError if fixed point in these formats cannot hold the preamble's values."""
    model: Any = architecture(config).model(config)
    for number, layer in enumerate(model.model.layers):
        most, name = 2.0**layer.self_attn.limits.values.reach * ROOM, f"model.layers.{number}.self_attn"
        largest = float(found[f"{name}.preamble_values{PREAMBLE}"].abs().max())
        if not largest < most:
            what = f"a value of the preamble is {largest:.4g} in layer {number}, and {most:.4g} is the limit there"
            raise RangeError(what, "let the plan see it: pass the text to --calibrate")


def _unheard(_: object) -> None:
    """Nobody asks which weight is read, or how far logits lie apart."""
