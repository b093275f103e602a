"""Public weights as their owner tells parties of them: each parameter's numbers, their kind and digest, and where they
lie, for parties on the same machine.

Whatever is here may be known to everybody. This file must not know links, nor who asks the model what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from torch import Tensor

from puma import kernels
from puma.errors import UsageError
from puma.kernels.stored import Stored
from puma.models import architecture
from puma.models.config import Config
from puma.models.unfolded.laid import Laid, laid
from puma.store.folders import explained
from puma.wire.limits import FRAME_BYTES
from puma.wire.messages import Listed, OpenWeights, Place, TensorSpec
from puma.wire.parameters import factors_of, open_digest, parameter_frac, tensor_specs

Progress = Callable[[str, int, int], None]
ALIGNED = 64  # bytes: where each parameter begins in the file of those that are written down
UNREAD = bytes(hashlib.sha256().digest_size)  # in place of the digest of what nobody has compared


@dataclass(frozen=True)
class Part:
    """One tensor of public weights: a parameter's numbers, or the factors of its columns."""

    spec: TensorSpec
    laid: Laid
    factors: bool = False

    def raw(self) -> Tensor:
        """Its numbers as bytes (uint8)."""
        if not self.factors:
            return self.laid.raw()
        assert self.laid.factors is not None
        return kernels.from_wire(bytearray(kernels.to_wire(self.laid.factors)))

    def frames(self) -> Iterator[memoryview]:
        """The same, piece by piece."""
        content = kernels.to_wire(self.raw())
        for at in range(0, len(content), FRAME_BYTES):
            yield content[at : at + FRAME_BYTES]

    def digested(self) -> Part:
        """With the SHA-256 of its numbers, which are read for it."""
        found = hashlib.sha256()
        for frame in self.frames():
            found.update(frame)
        return replace(self, spec=msgspec.structs.replace(self.spec, sha256=found.digest()))


def parts(config: Config, params: Mapping[str, Tensor], alias: Mapping[str, str] | None = None) -> list[Part]:
    """All tensors of public weights but those that are another one, in the order of the parameters; undigested."""
    specs = {spec.name: spec for spec in tensor_specs(config) if spec.name not in (alias or {})}
    found: list[Part] = []
    for each in laid(params, parameter_frac, specs):
        spec = msgspec.structs.replace(specs[each.name], kind=each.kind, sha256=UNREAD)
        found.append(Part(spec, each))
        if each.factors is not None:
            found.append(Part(msgspec.structs.replace(factors_of(spec), sha256=UNREAD), each, factors=True))
    return found


def digested(found: Sequence[Part], progress: Progress) -> list[Part]:
    """The same with digests: all numbers are read once."""
    result: list[Part] = []
    for i, part in enumerate(found):
        progress("reading the weights", i, len(found))
        result.append(part.digested())
    return result


def weights_of(config: Config, found: Sequence[Part], alias: Mapping[str, str] | None = None) -> OpenWeights:
    """What a card says of them."""
    specs = {part.spec.name: part.spec for part in found}
    name = architecture(config).table
    name = (alias or {}).get(name, name)
    digest = open_digest(config, [part.spec for part in found])
    table = specs.get(name)
    return OpenWeights(digest, table, specs.get(factors_of(table).name) if table else None)


def base_among(
    served: Sequence[Listed], config: Config, params: Mapping[str, Tensor], progress: Progress
) -> Listed:  # fmt: skip
    """Which of the models that are served has these very weights in the open, whatever its number formats are, so that
    an adapter can be shared over it; UsageError if none has."""
    one = among(served, config, params, progress)
    if one is None:
        what = "no model of the cluster is the adapter's base"
        raise UsageError(what, "share it first: puma share MODEL --open-weights")
    return one


def among(
    served: Sequence[Listed], config: Config, params: Mapping[str, Tensor], progress: Progress
) -> Listed | None:  # fmt: skip
    """The same; None if none of them has these weights in the open."""
    for one in served:
        alike = msgspec.structs.replace(one.config, formats=config.formats) == config
        if one.card.weights is not None and one.card.base is None and alike:
            found = digested(parts(one.config, params), progress)
            if weights_of(one.config, found).sha256 == one.card.weights.sha256:
                return one
    return None


def named(config: Config, found: Sequence[Part]) -> str:
    """A name for digested weights that lie where they lie now."""
    files = {part.laid.file for part in found if part.laid.file is not None}
    where = sorted((str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return hashlib.sha256(weights_of(config, found).sha256 + repr(where).encode()).hexdigest()[:24]


def matrix_of(config: Config, found: Sequence[Part], alias: Mapping[str, str] | None = None) -> Stored | None:
    """The table of embeddings where it lies; None of a model that has none."""
    name = architecture(config).table
    name = (alias or {}).get(name, name)
    part = next((part for part in found if part.spec.name == name), None)
    if part is None:
        return None
    return Stored(part.raw(), part.spec.kind, part.spec.shape[-1], part.laid.factors)


def placed(found: Sequence[Part], folder: Path) -> list[Place]:
    """Where each of them lies on this machine; what lies in no file of the model's is written below `folder`, and may
    go once the parties have opened it. StoreError if there is no room for it."""
    path = folder / "weights"
    offsets = list[tuple[Path, int]]()
    with explained(f"the weights in {folder}"):
        path.unlink(missing_ok=True)  # whoever has mapped an older one keeps it
    with explained(f"the weights in {folder}"), path.open("xb") as file:
        for part in found:
            if not part.factors and part.laid.file is not None:
                offsets.append((part.laid.file, part.laid.offset))
                continue
            file.seek(-(-file.tell() // ALIGNED) * ALIGNED)
            offsets.append((path, file.tell()))
            for frame in part.frames():
                file.write(frame)
    return [place(where, at) for where, at in offsets]


def place(path: Path, offset: int) -> Place:
    """A place in a file as it is now."""
    found = path.resolve().stat()
    return Place(str(path.resolve()), offset, found.st_size, found.st_mtime_ns)
