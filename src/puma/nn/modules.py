"""The building blocks that model files share: a tree of named parameters, attention, its rotary angles.

It knows the names and shapes of parameters and calls `puma.nn.functional`; it must not know whether a
parameter is a torch tensor or a share, nor anything about parties, links or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from puma.errors import TensorError
from puma.nn import functional as F
from puma.nn.layout import Layout as Layout  # models use both by these names, too
from puma.nn.layout import Rows as Rows

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
            value = params[name]  # once: it may be computed at each look
            if tuple(value.shape) != expected:
                raise TensorError(f"parameter {name} has shape {tuple(value.shape)}, expected {expected}", hint)
            setattr(owner, attribute, value)


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


def attend(q: Value, k: Value, v: Value, at: Layout, bias: Value | None = None, cap: float = 0.0) -> Value:
    """Attention of queries (rows, heads, size), already scaled: (rows, heads * size).

    Keys and values (prompts, kv_heads, length, size) are padded. Query heads that share a key head are further rows of
    one matmul, so grouped keys are never repeated. Scores are first soft-capped, if there is a `cap`, and then added to
    a `bias` that broadcasts to (prompts, kv_heads, groups * rows, length), and to the layout's offset.
    """
    q = at.queries.pad(q)
    prompts, heads, rows, size = q.shape
    groups = heads // k.shape[1]
    q = q.reshape(prompts, k.shape[1], groups * rows, size)
    mask = at.mask.repeat(1, groups, 1).unsqueeze(1)
    scores = F.scores(q, k)
    scores = F.softcap(scores, cap) if cap else scores
    scores = scores if bias is None else scores + bias
    if at.offset is not None:
        scores = scores + (at.offset if at.offset.shape[2] == 1 else F.cat([at.offset] * groups, 2))
    context = F.softmax_matmul(scores, v, mask)
    return at.queries.unpad(context.reshape(prompts, heads, rows, size))


def hiding(flags: Value) -> Value:
    """What takes columns out of softmax where flags, secret or not, are 1 and leaves them where they are 0."""
    return F.times(flags, -HIDING)


def rotary_angles(positions: torch.Tensor, frequencies: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Cosine and sine (2, rows, 1, size) of the rotary angles of positions (rows,), frequencies (size / 2,)."""
    angles = positions.to(device, torch.float32)[:, None] * frequencies.to(device)
    angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
    return torch.stack((angles.cos(), angles.sin()))


def absorb(state: dict[str, Value], norm: str, readers: Iterable[str]) -> None:
    """Fold the affine of a norm into the matrices that read it: W(s*n + b) + c = (W*s) n + (Wb + c)."""
    for reader in readers:
        weight = state[f"{reader}.weight"]
        if f"{norm}.bias" in state:
            own, added = state.get(f"{reader}.bias"), weight @ state[f"{norm}.bias"]
            state[f"{reader}.bias"] = added if own is None else own + added
        state[f"{reader}.weight"] = weight * state[f"{norm}.weight"]


def absorb_norms(state: dict[str, Value], block: str, readers: Mapping[str, Iterable[str]]) -> None:
    """The same for the norms and matrices of a block, whichever of them the model has."""
    for norm, names in readers.items():
        if f"{block}{norm}.weight" in state:
            absorb(state, block + norm, [block + name for name in names if f"{block}{name}.weight" in state])


def rescale(state: dict[str, Value], linear: str, factor: float) -> None:
    """Multiply what a matrix and its bias return by a public factor."""
    for name in (f"{linear}.weight", f"{linear}.bias"):
        if name in state:
            state[name] = state[name] * factor


HIDING = 1 << 13  # off a hidden score; with the spread of others it stays within their reach

QUICK = 1.702  # quick_gelu(x) is silu(QUICK x) / QUICK; the factors are folded into matrices

ACTIVATIONS: dict[str, Callable[[Value], Value]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, "tanh"),
    "silu": F.silu,
    "quick_gelu": F.silu,  # of a folded model
    "relu": F.relu,
    "tanh": F.tanh,
}


def activate(name: str, x: Value) -> Value:
    """The activation of this name, elementwise."""
    return ACTIVATIONS[name](x)


def gated(name: str, gate: Value, up: Value) -> Value:
    """activation(gate) * up for the activation of this name."""
    return (
        F.silu_gated(gate, up)
        if name in ("silu", "quick_gelu")
        else F.gelu_gated(gate, up, "tanh" if name == "gelu_tanh" else "none")
    )
