"""Which parameters an owner shares, and in what format each travels and lies with the parties.

It must not know masks, links or files."""

from __future__ import annotations

import torch
from torch import Tensor

from puma.models import architecture
from puma.models.config import Config
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT
from puma.mpc.seeded import rest_bytes
from puma.wire.messages import TensorSpec

# Shared under a model's seeds in a stream of its own; the parties open it among themselves and use it for nothing else.
CHECK = TensorSpec("puma.check", (16,), RING, 0)
KEEP_MASKS_BELOW = 50_000_000  # parameters; larger models draw their masks again at every use


def tensor_specs(config: Config) -> list[TensorSpec]:
    """Names, shapes and formats of the parameters that the owner shares."""
    shapes, rings = architecture(config).parameters(config), architecture(config).rings(config)
    return [TensorSpec(name, shape, rings[name], parameter_frac(name)) for name, shape in shapes.items()]


def shared_bytes(config: Config) -> int:
    """Bytes that an evaluator keeps of such a model."""
    return sum(rest_bytes(spec.shape, spec.bits) for spec in tensor_specs(config))


def offered_specs(config: Config) -> list[TensorSpec]:
    """The parameters, and behind them the check vector: what an owner shares in all."""
    return [*tensor_specs(config), CHECK]


def check_values() -> Tensor:
    """The check vector's public numbers (16,), whole and in units of the last place."""
    return torch.arange(1, 17, dtype=torch.float64) * 0x9E3779B9


def parameter_frac(name: str) -> int:
    """Biases are added to untruncated products, everything else is a factor or a table."""
    return ACTIVATION + WEIGHT if name.endswith(".bias") else WEIGHT
