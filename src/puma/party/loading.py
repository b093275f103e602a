"""From a model's words, wherever they lie, to an engine; and a parameter's words as they come over a link.

It knows shares and where their words lie; it must not know requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey
from puma.engine.engine import Engine
from puma.kernels import Stored
from puma.models.config import Config
from puma.mpc.party import Party
from puma.mpc.public import Public
from puma.mpc.seeded import Seeded, rest_bytes
from puma.mpc.share import Share
from puma.store.models import Model
from puma.wire.limits import FRAME_BYTES, FRAME_WORDS
from puma.wire.messages import TensorSpec
from puma.wire.parameters import CHECK, FACTORS, factors_of, spec_bytes, tensor_specs


def opened(party: Party, model: Model) -> Engine:
    """An engine on a model whose words are read as they are used."""
    manifest = model.manifest
    make = _public if manifest.public else _share
    own = [spec for spec in manifest.tensors if spec != CHECK and not spec.name.endswith(FACTORS)]
    params: dict[str, Share] = {spec.name: make(party, model, spec) for spec in own}
    if model.base is not None:
        params = _over(party, model.base, manifest.config, params)
    for name, source in manifest.alias.items():
        params[name] = params[source]  # that an alias names what was shared, the offer was checked for
    return Engine(party, manifest.config, params)


def check_vector(party: Party, model: Model) -> Share:
    """This party's share of the numbers by which three parts are seen to fit."""
    return _share(party, model, CHECK)


def _share(party: Party, model: Model, spec: TensorSpec) -> Share:
    keys = [PairKey(seed) for seed in model.manifest.seeds]
    streams = [key.stream(f"weight {spec.name}") for key in keys]
    return Seeded(
        party, model.packed(spec.name), streams, spec.shape, spec.bits, spec.frac, keep=model.manifest.keep_masks,
        touch=partial(model.touch, spec.name), kept=model.words[spec.name],
    )  # fmt: skip


def _over(party: Party, base: Model, config: Config, own: dict[str, Share]) -> dict[str, Share]:
    """All parameters of an adapted model: the base's numbers, in its own rings, and the adapter's, which are secret."""
    kinds = {spec.name: spec.kind for spec in base.manifest.tensors}
    found: dict[str, Share] = {}
    for spec in tensor_specs(config):
        if spec.name in own:
            found[spec.name] = own[spec.name]
            continue
        name = base.manifest.alias.get(spec.name, spec.name)
        found[spec.name] = _public(party, base, replace(spec, name=name, kind=kinds[name]))
    return found


def _public(party: Party, model: Model, spec: TensorSpec) -> Share:
    raw = model.packed(spec.name)
    if raw is None:
        return Public(party, spec.shape, spec.bits, spec.frac)
    factors = factors_of(spec)
    each = model.packed(factors.name).view(torch.float32) if factors.name in model.words else None  # type: ignore[union-attr]
    matrix = Stored(raw.to(party.device), spec.kind, spec.shape[-1], each)
    return Public(party, spec.shape, spec.bits, spec.frac, matrix, touch=partial(model.touch, spec.name))


def frames(owner: Any, spec: TensorSpec) -> Iterator[Tensor]:
    """A parameter in wire form, piece by piece."""
    left, most = spec_bytes(spec), FRAME_BYTES if spec.kind else rest_bytes((FRAME_WORDS,), spec.bits)
    while left:
        size = min(left, most)
        yield kernels.from_wire(owner.recv(size))
        left -= size
