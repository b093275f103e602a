"""Formats as a run in the clear finds them, with a margin: what tests need of them, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import torch
from torch import Tensor

from puma.models import Cache, architecture
from puma.models.architectures import Config
from puma.models.formats import Formats, observe, places
from puma.nn.places import LARGEST, SEEN, Place


def size(place: Place, x: Tensor) -> float:
    """The largest of what a place is about."""
    if place.kind == "norm":
        x = x - x.mean(-1, keepdim=True) if place.centred else x
        return float(x.double().norm(dim=-1).max())
    return float(x.abs().max())


def measured(config: Config, params: Mapping[str, Tensor], prompts: Sequence[Sequence[int]], margin: int = 1) -> Config:
    """The config with a reach at every place: so many bits beyond what these prompts need."""
    largest: dict[str, float] = {}
    stream = 0.0
    model = architecture(config).model(config, params)
    kinds = {name: place.kind for name, place in places(model).items()}

    def note(place: Place, x: Tensor) -> None:
        nonlocal stream
        if place.kind != "stream":
            largest[place.name] = max(size(place, x), largest.get(place.name, 0.0))
        if place.kind in ("stream", "norm"):
            stream = max(stream, float(x.abs().max()))

    observe(model, note)
    for ids in prompts:
        x = torch.tensor(list(ids))
        states = model.states(x, [len(ids)])  # of all rows: the head reads the last one of each prompt alone
        if architecture(config).heads(config).generates:
            model(x, Cache(config.layers))
        elif config.labels:
            model.classify(states)
    reaches = {name: reach(found, margin, LARGEST[kinds[name]], kinds[name]) for name, found in largest.items()}
    formats = Formats(stream=reach(stream, margin, LARGEST["stream"]), places=reaches)
    return msgspec.structs.replace(config, formats=formats)


def reach(found: float, margin: int, most: int, kind: str = "") -> int:
    """The least reach whose limit is `margin` bits beyond."""
    place, wanted = Place(kind or "stream"), found * 2**margin
    place.reach = max(SEEN, math.ceil(math.log2(max(found, 1e-9))) + margin)
    while place.limit <= wanted:
        place.reach += 1
    return min(most, place.reach)
