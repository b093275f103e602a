"""The building blocks that model files share: a tree of named parameters, attention, its public tensors.

It knows the names and shapes of parameters and calls `puma.nn.functional`; it must not know whether a
parameter is a torch tensor or a share, nor anything about parties, links or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from puma.errors import TensorError
from puma.nn import functional as F

Value = Any  # a torch tensor in the plain run, a share (or a product not yet truncated) in the secure run


class Parameter(tuple[int, ...]):
    """The shape of a parameter that is still to be filled in."""


class Module:
    """A tree of parameters; attributes are named as in the checkpoint, so that loading is name for name."""

    def __init__(self, /, **children: Any) -> None:
        vars(self).update(children)

    def slots(self, prefix: str = "") -> Iterator[tuple[str, Module, str]]:
        """Every unfilled parameter: its full name, its module, its attribute."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, self, name
            elif isinstance(value, Module):
                yield from value.slots(f"{prefix}{name}.")
            elif isinstance(value, list):
                for i, child in enumerate(value):
                    yield from child.slots(f"{prefix}{name}.{i}.")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the unfilled parameters."""
        return {name: tuple(getattr(owner, attribute)) for name, owner, attribute in self.slots()}

    def fill(self, params: Mapping[str, Value] | None) -> None:
        """Put each parameter in its place; without any, the module stays a skeleton that has only shapes."""
        if params is None:
            return
        for name, owner, attribute in list(self.slots()):
            expected, hint = tuple(getattr(owner, attribute)), "pass what fold returns for the same config"
            if name not in params:
                raise TensorError(f"parameter {name} is missing", hint)
            if tuple(params[name].shape) != expected:
                found = tuple(params[name].shape)
                raise TensorError(f"parameter {name} has shape {found}, expected {expected}", hint)
            setattr(owner, attribute, params[name])


class Linear(Module):
    """A matrix (outputs, inputs) and perhaps a bias."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        self.weight: Value = Parameter((outputs, inputs))
        self.bias: Value = Parameter((outputs,)) if bias else None

    def __call__(self, x: Value) -> Value:
        return F.linear(x, self.weight, self.bias)


class Embedding(Module):
    """A table of rows: looked up in secret by one-hot vectors, or indexed in public by positions."""

    def __init__(self, rows: int, width: int) -> None:
        self.weight: Value = Parameter((rows, width))

    def __call__(self, one_hot: Value) -> Value:
        return F.embedding(one_hot, self.weight)


class Affine(Module):
    """A norm's scale and perhaps bias, where something other than matrices reads it too."""

    def __init__(self, size: int, bias: bool = True) -> None:
        self.weight: Value = Parameter((size,))
        self.bias: Value = Parameter((size,)) if bias else None

    def __call__(self, x: Value) -> Value:
        return F.affine(x, self.weight, self.bias)


def split_heads(projections: Sequence[Value], size: int) -> Value:
    """Each (rows, heads * size) -> (all heads, rows, size); joined, so that they are opened in one round."""
    x = F.cat(projections, -1)
    return x.reshape(x.shape[0], -1, size).transpose(0, 1)


def join_heads(x: Value) -> Value:
    """(heads, rows, size) -> (rows, heads * size)."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def attend(q: Value, k: Value, v: Value, mask: torch.Tensor) -> Value:
    """Attention of queries (heads, rows, size), already scaled, on keys and values (kv_heads, length, size).

    Query heads that share a key head are further rows of one matmul, so grouped keys are never repeated.
    """
    heads, rows, size = q.shape
    groups = heads // k.shape[0]
    q = q.reshape(k.shape[0], groups * rows, size)
    context = F.softmax_matmul(F.matmul(q, k.transpose(1, 2)), v, mask.repeat(groups, 1))
    return context.reshape(heads, rows, size)


def causal_mask(rows: int, length: int) -> torch.Tensor:
    """The mask of the last `rows` positions of `length`: each attends to itself and what came before.

    Masks stay on the CPU: they say which scores are computed at all, on the meta device too.
    """
    return torch.ones(rows, length, dtype=torch.bool).tril(length - rows)


def full_mask(rows: int) -> torch.Tensor:
    """The mask of an encoder without padding: all attend to all."""
    return torch.ones(rows, rows, dtype=torch.bool)


def rotary_angles(
    start: int, rows: int, size: int, theta: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine (rows, size) of the rotary angles of positions start, start + 1, ..."""
    frequencies = theta ** -(torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    angles = torch.arange(start, start + rows, device=device, dtype=torch.float32)[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def absorb(state: dict[str, Value], norm: str, readers: Iterable[str]) -> None:
    """Fold the affine of a norm into the matrices that read it: W(s*n + b) + c = (W*s) n + (Wb + c)."""
    for reader in readers:
        weight = state[f"{reader}.weight"]
        if f"{norm}.bias" in state:
            state[f"{reader}.bias"] = state[f"{reader}.bias"] + weight @ state[f"{norm}.bias"]
        state[f"{reader}.weight"] = weight * state[f"{norm}.weight"]


def rescale(state: dict[str, Value], linear: str, factor: float) -> None:
    """Multiply what a matrix and its bias return by a public factor."""
    for name in (f"{linear}.weight", f"{linear}.bias"):
        if name in state:
            state[name] = state[name] * factor
