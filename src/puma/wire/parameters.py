"""Which parameters an owner shares, and in what format each travels and lies with the parties.

It must not know masks, links or files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor

from puma.kernels.stored import bytes_of, fits
from puma.models import architecture
from puma.models.config import Config
from puma.models.fields import PREAMBLE
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT
from puma.mpc.seeded import rest_bytes
from puma.wire.messages import Card, TensorSpec

# Shared under a model's seeds in a stream of its own; the parties open it among themselves and use it for nothing else.
CHECK = TensorSpec("puma.check", (16,), RING, 0)
SHARING_BYTES = 16
KEEP_MASKS_BELOW = 50_000_000  # parameters; larger models draw their masks again at every use


def tensor_specs(config: Config) -> list[TensorSpec]:
    """Names, shapes and formats of the parameters that the owner shares."""
    shapes, rings = architecture(config).parameters(config), architecture(config).rings(config)
    return [TensorSpec(name, shape, rings[name], parameter_frac(name)) for name, shape in shapes.items()]


def shared_bytes(config: Config) -> int:
    """Bytes that an evaluator keeps of such a model; of public weights at most."""
    return sum(rest_bytes(spec.shape, spec.bits) for spec in tensor_specs(config))


def of_adapter(name: str) -> bool:
    """Whether a parameter is an adapter's: a secret one beside a public matrix."""
    return name.endswith((".adapter.a", ".adapter.b"))


def offered_specs(config: Config) -> list[TensorSpec]:
    """The parameters, or of a model with an adapter the adapter's alone, and behind them the check vector: what an
    owner shares in all."""
    own = [spec for spec in tensor_specs(config) if of_adapter(spec.name) or not config.formats.adapted]
    return [*own, CHECK]


def check_values() -> Tensor:
    """The check vector's public numbers (16,), whole and in units of the last place."""
    return torch.arange(1, 17, dtype=torch.float64) * 0x9E3779B9


# -- of public weights ----------------------------------------------------------------------------------------------

FACTORS = ":factors"  # behind the name of a matrix: what its columns are multiplied by


def spec_bytes(spec: TensorSpec) -> int:
    """Bytes of a parameter at rest and on its way: masked words, or numbers as they lie in a file."""
    if spec.kind:
        return bytes_of(spec.kind, math.prod(spec.shape))
    return rest_bytes(spec.shape, spec.bits)


def factors_of(spec: TensorSpec) -> TensorSpec:
    """What is said of the factors of a public matrix's columns."""
    return TensorSpec(f"{spec.name}{FACTORS}", spec.shape[-1:], 32, 0, "f32")


def unsaid(spec: TensorSpec) -> TensorSpec:
    """The same without what only a public parameter has."""
    return msgspec.structs.replace(spec, kind="", sha256=b"")


def undigested(spec: TensorSpec) -> TensorSpec:
    """The same without its digest."""
    return msgspec.structs.replace(spec, sha256=b"")


def public(config: Config) -> bool:
    """Whether nothing of what an owner gives of such a model is secret: not so of an adapter over public weights."""
    return config.formats.open and not config.formats.adapted


def open_digest(config: Config, tensors: Sequence[TensorSpec]) -> bytes:
    """SHA-256 of public weights: of the config and of what is said of each tensor, its own digest with it."""
    words = msgspec.json.encode((config, list(tensors)))
    return hashlib.sha256(b"puma/1|open weights|" + words).digest()


def open_sharing(card: Card) -> bytes:
    """By what the parties know a model with public weights: a digest of all that its card says, theirs with it."""
    return hashlib.sha256(b"puma/1|open model|" + msgspec.json.encode(card)).digest()[:SHARING_BYTES]


def public_specs(config: Config, tensors: Sequence[TensorSpec]) -> bool:
    """Whether these are all parameters of a model as public ones, each at most with factors of its own."""
    wanted, found = {spec.name: spec for spec in tensor_specs(config)}, {spec.name: spec for spec in tensors}
    own = {name: spec for name, spec in found.items() if not name.endswith(FACTORS)}
    factors = {name.removesuffix(FACTORS): spec for name, spec in found.items() if name not in own}
    return (
        len(found) == len(tensors)
        and own.keys() <= wanted.keys()
        and all(unsaid(spec) == wanted[name] and fits(spec.kind, spec.shape) for name, spec in own.items())
        and all(undigested(spec) == factors_of(own[name]) for name, spec in factors.items() if name in own)
        and factors.keys() <= {name for name, spec in own.items() if len(spec.shape) == 2 and spec.kind[0] != "i"}
        and all(len(spec.sha256) == hashlib.sha256().digest_size for spec in tensors)
    )


def parameter_frac(name: str) -> int:
    """Biases are added to untruncated products, a preamble's keys and values lie as they are cached, everything else is
    a factor or a table."""
    if name.endswith(PREAMBLE):
        return ACTIVATION
    return ACTIVATION + WEIGHT if name.endswith(".bias") else WEIGHT
