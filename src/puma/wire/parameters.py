"""Which parameters an owner shares, and in what format each travels and lies with the parties."""

from __future__ import annotations

from puma.models import architecture
from puma.models.config import Config
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT
from puma.mpc.seeded import rest_bytes
from puma.wire.messages import TensorSpec

KEEP_MASKS_BELOW = 50_000_000  # parameters; larger models draw their masks again at every use


def tensor_specs(config: Config) -> list[TensorSpec]:
    """Names, shapes and formats of the parameters that the owner shares."""
    shapes = architecture(config).parameters(config)
    return [TensorSpec(name, shape, RING, parameter_frac(name)) for name, shape in shapes.items()]


def shared_bytes(config: Config) -> int:
    """Bytes that an evaluator keeps of such a model."""
    return sum(rest_bytes(spec.shape, spec.bits) for spec in tensor_specs(config))


def parameter_frac(name: str) -> int:
    """Biases are added to untruncated products, everything else is a factor or a table."""
    return ACTIVATION + WEIGHT if name.endswith(".bias") else WEIGHT
