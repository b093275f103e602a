"""How a model comes to a party: from its owner, piece by piece, or from the party's own store.

It knows shares and where their words lie; it must not know requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey
from puma.engine.engine import Engine
from puma.errors import ProtocolError
from puma.mpc.party import Party
from puma.mpc.seeded import Seeded, rest_bytes
from puma.mpc.share import Share
from puma.store.models import Manifest, Model, Store
from puma.wire.limits import FRAME_WORDS
from puma.wire.messages import Load, TensorSpec


def received(party: Party, owner: Any, load: Load) -> Engine:
    """A model that stays in memory as long as the session."""
    packed = {} if party.is_dealer else {spec.name: _parameter(owner, spec) for spec in load.tensors}
    return _engine(party, load, packed)


def stored(party: Party, owner: Any, load: Load, store: Store) -> Model:
    """A model that goes into the store as it arrives, and is there when all of it has."""
    manifest = Manifest(
        name=load.keep, sharing=load.sharing, config=load.config, tensors=load.tensors, seeds=load.seeds,
        keep_masks=load.keep_masks, alias=load.alias, reveal_logits=load.reveal_logits,
    )  # fmt: skip
    upload = store.create(manifest, data=not party.is_dealer)
    try:
        if not party.is_dealer:
            for spec in load.tensors:
                for frame in frames(owner, spec):
                    upload.write(kernels.to_wire(frame))
        return upload.finish()
    finally:
        upload.discard()


def opened(party: Party, model: Model) -> Engine:
    """A model that is read from the store as it is used."""
    names = [spec.name for spec in model.manifest.tensors]
    packed = {name: model.packed(name) for name in names}
    return _engine(party, model.manifest, packed, model.touch, model.words)


def _engine(
    party: Party, model: Load | Manifest, packed: Mapping[str, Tensor | None],
    touch: Callable[[str], None] | None = None, kept: Mapping[str, list[tuple[Tensor, Tensor]]] | None = None,
) -> Engine:  # fmt: skip
    keys = [PairKey(seed) for seed in model.seeds]
    params: dict[str, Share] = {}
    for spec in model.tensors:
        streams = [key.stream(f"weight {spec.name}") for key in keys]
        params[spec.name] = Seeded(
            party, packed.get(spec.name), streams, spec.shape, spec.bits, spec.frac, keep=model.keep_masks,
            touch=partial(touch, spec.name) if touch else None, kept=kept[spec.name] if kept else None,
        )  # fmt: skip
    for name, source in model.alias.items():
        if source not in params:
            raise ProtocolError(f"parameter {name} is to be {source}, which was not shared", "share that first")
        params[name] = params[source]
    return Engine(party, model.config, params)


def _parameter(owner: Any, spec: TensorSpec) -> Tensor:
    packed = torch.empty(rest_bytes(spec.shape, spec.bits), dtype=torch.uint8)
    low = 0
    for frame in frames(owner, spec):
        packed[low : low + frame.numel()] = frame
        low += frame.numel()
    return packed


def frames(owner: Any, spec: TensorSpec) -> Iterator[Tensor]:
    """A parameter in wire form, piece by piece."""
    left, most = rest_bytes(spec.shape, spec.bits), rest_bytes((FRAME_WORDS,), spec.bits)
    while left:
        size = min(left, most)
        yield kernels.from_wire(owner.recv(size))
        left -= size
