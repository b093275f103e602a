"""Checkpoints that a party's operator has given it: of public weights whatever lies there need not be sent.

A tensor counts only if it has the digest that everybody was told. This file must not know links, nor who offers what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from torch import Tensor

from puma import kernels
from puma.errors import PumaError
from puma.models.checkpoint import load
from puma.models.config import Config
from puma.models.unfolded.laid import Laid, laid
from puma.store.models import CHUNK
from puma.store.uploads import ResumableUpload
from puma.wire.messages import TensorSpec
from puma.wire.parameters import FACTORS, parameter_frac


class Given:
    """Folders or files of checkpoints, each opened when something is offered."""

    def __init__(self, sources: Sequence[Path]) -> None:
        self._sources = sources

    def fill(self, upload: ResumableUpload) -> None:
        """Take in what of an offer lies here, from the first tensor on that is lacking, up to one that does not."""
        offer = upload.offer
        if not offer.config.formats.open or offer.places or upload.published:
            return
        found = self._found(offer.config) if upload.held < len(offer.tensors) else None
        for spec in offer.tensors[upload.held :] if found else []:
            content = _content(found or {}, spec)
            if content is None or hashlib.sha256(content).digest() != spec.sha256:
                return
            for piece in _pieces(content):
                upload.write(piece)
            upload.checked(spec.sha256)

    def _found(self, config: Config) -> Mapping[str, Laid] | None:
        """The parameters of the checkpoint that such a config belongs to, whatever its number formats are."""
        for source in (each for each in self._sources if each.exists()):  # a name of the hub is not looked for
            try:
                checkpoint = load(source)
            except PumaError:  # what cannot be used is as if it were not there: the weights are sent
                continue
            if msgspec.structs.replace(checkpoint.config, formats=config.formats) == config:
                all_of_them = laid(checkpoint.fold(), parameter_frac)
                return {each.name: each for each in all_of_them}
        return None


def _content(found: Mapping[str, Laid], spec: TensorSpec) -> memoryview | None:
    """A tensor's numbers as they are offered, if they lie here alike."""
    name = spec.name.removesuffix(FACTORS)
    each = found.get(name)
    if each is None:
        return None
    if name != spec.name:
        factors: Tensor | None = each.factors
        return None if factors is None else kernels.to_wire(factors)
    return kernels.to_wire(each.raw()) if (each.kind, each.shape) == (spec.kind, tuple(spec.shape)) else None


def _pieces(content: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(content), CHUNK):
        yield content[at : at + CHUNK]
