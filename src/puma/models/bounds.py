"""The arithmetic of bounds: how large a product can become, and how far apart scores, for all inputs there are.

A norm's output n of width d has length sqrt(d) at most, so |w n + b| <= sqrt(d) |w| + |b| for every row w of a matrix
that reads it, and scores n' (Wq' Wk) n are bounded by d times a singular value. What reads a norm through its affine,
or through a projection, reads A n + c. Architectures say which matrix reads what; a plan makes formats of the bounds.
It works on folded parameters in the clear, and must not know shares or models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from puma.errors import RangeError
from puma.models.architecture import Bound, Params
from puma.mpc.fixed import RELU_REACH

PRODUCT_LIMIT = 2.0**RELU_REACH  # more could not enter the next matrix
ADDED = "what is added to the residual stream"
APART = 0.1  # by which an activation, or what approximates it, may exceed its input
SPECTRAL = 2048  # the largest matrix whose singular values are looked for
DECAY_LIMIT = 2.0**10  # of g in nn/delta.py


@dataclass(frozen=True)
class Source:
    """What a matrix reads: A n + c, n the output of a norm of width d; A and c None where it reads n itself."""

    width: int
    matrix: Tensor | None = None  # (inputs, width), or its diagonal
    shift: Tensor | None = None

    def seen(self, weight: Tensor) -> Tensor:
        """The weight that reads n."""
        if self.matrix is None:
            return weight
        return weight * self.matrix if self.matrix.ndim == 1 else weight @ self.matrix

    def largest(self) -> Tensor:
        """The largest size of each entry, or of all alike."""
        root, matrix = math.sqrt(self.width), self.matrix
        if matrix is None:
            return torch.tensor([root])
        sizes = root * (matrix.abs() if matrix.ndim == 1 else torch.linalg.vector_norm(matrix, dim=1))
        return sizes if self.shift is None else sizes + self.shift.abs()

    def constant(self, weight: Tensor) -> Tensor:
        """What the shift adds, whatever n is."""
        return weight.new_zeros(len(weight)) if self.shift is None else weight @ self.shift


def value(name: str, bound: float) -> Bound:
    """Of a value that attention sums up."""
    return Bound(name, bound, "a value")


def scores(name: str, spread: float) -> Bound:
    """Of how far apart two scores of one row can be."""
    return Bound(name, spread, "attention scores with a spread")


def activation(kind: str, name: str, bound: float) -> Bound:
    """Of what enters the activation of this kind."""
    return Bound(name, bound, f"an activation by {kind}")


def gated(name: str, bound: float) -> Bound:
    """Of a product of two matrices' results."""
    return Bound(name, bound, "a gated product")


def logits(name: str, table: Tensor, source: Source, bias: Tensor | None = None) -> Bound:
    """Of how far apart two logits can be, before a soft cap, that a table (words, width) gives of what it reads."""
    params = {"head.weight": table} if bias is None else {"head.weight": table, "head.bias": bias}
    return Bound(name, 2 * float(rows(params, "head", source).max()), "logits with a spread")


def added(name: str, rows: Tensor, residual: float = 0.0) -> Bound:
    """Of what a matrix adds to the residual stream, whose `rows` are bounded, and of what it is added to, if anything
    else than rows that a norm has read."""
    return Bound(name, float(rows.max()) + residual, ADDED)


def tables(params: Params, names: Sequence[str], factor: int = 1) -> Bound:
    """Of the sum of rows of these tables, those that there are, which the residual stream begins with."""
    sizes = [max(abs(float(end)) for end in params[name].aminmax()) for name in names if name in params]
    return Bound(names[0].removesuffix(".weight"), factor * sum(sizes), ADDED)


def attended(
    params: Params, value: str, output: str, head_dim: int, source: Source, less: bool = False
) -> Tensor:  # fmt: skip
    """The largest size of each row's result of the matrix that reads attention's (rows,).

    What a head gives is a mean of values, W m + b with |m| <= sqrt(d): so |W' (W m + b)| <= sqrt(d) |W' W| + |W' b|. It
    is `less` than a mean where a head may look at nothing: then each head counts for any part of itself.
    """
    values, constant = _projected(params, value, head_dim, source)
    weight = params[f"{output}.weight"].reshape(-1, params[f"{output}.weight"].shape[1] // head_dim, head_dim)
    groups = weight.shape[1] // len(values)
    squares = (values @ values.mT).repeat_interleave(groups, dim=0)  # of W' W by those of W alone
    sizes = [
        ((part @ square) * part).sum(1).clamp(min=0).sqrt()
        for part, square in zip(weight.unbind(1), squares, strict=True)
    ]
    shift = (weight * constant.repeat_interleave(groups, dim=0)).sum(2)  # of each head
    bias = params.get(f"{output}.bias", weight.new_zeros(len(weight)))
    ends = [shift.clamp(min=0), shift.clamp(max=0)] if less else [shift]
    constants = torch.stack([(end.sum(1) + bias).abs() for end in ends]).amax(0)
    return math.sqrt(source.width) * torch.stack(sizes).sum(0) + constants


def activated(params: Params, names: Sequence[str], output: str, source: Source) -> Tensor:
    """The largest size of each row's result of the matrix that reads an activation's, or a gated product's (rows,).

    No activation is further from 0 than its input by more than APART. Of both bounds that there are the smaller counts:
    by the size of every entry, and by the length of a row, of all but the first matrix's results the largest entry.
    """
    sizes = [rows(params, name, source) for name in names]
    sizes[0] = sizes[0] + APART
    weight, bias = params[f"{output}.weight"], params.get(f"{output}.bias")
    each = weight.abs() @ math.prod(sizes[1:], start=sizes[0])
    last = source.seen(params[f"{names[-1]}.weight"])
    if min(last.shape) <= SPECTRAL:
        small = last @ last.mT if last.shape[0] < last.shape[1] else last.mT @ last
        length = math.sqrt(source.width) * float(torch.linalg.eigvalsh(small)[-1].clamp(min=0).sqrt())
        shift = source.constant(params[f"{names[-1]}.weight"])
        own = params.get(f"{names[-1]}.bias")
        length += float(torch.linalg.vector_norm(shift if own is None else shift + own))
        length += APART * math.sqrt(len(last)) if len(names) == 1 else 0.0
        most = math.prod(float(size.max()) for size in sizes[:-1])
        each = torch.minimum(each, torch.linalg.vector_norm(weight, dim=1) * (length * most))
    return each if bias is None else each + bias.abs()


def factor(name: str, bound: float) -> None:
    """RangeError unless what a matrix gives, to be multiplied or compared as it is, can be lifted."""
    if not bound < PRODUCT_LIMIT:
        what = f"{name} can give a factor of {bound:.4g}, beyond {PRODUCT_LIMIT:g}"
        raise RangeError(what, "fixed-point numbers could overflow; use a checkpoint with smaller weights")


def logarithm(name: str, bound: float) -> None:
    """RangeError unless the logarithm of one decay can be lifted."""
    if not bound < DECAY_LIMIT:
        what = f"{name} can forget by a factor of e^{bound:.4g} at a token, beyond e^{DECAY_LIMIT:g}"
        raise RangeError(what, "fixed-point numbers could overflow; use a checkpoint with smaller weights")


def rows(params: Params, name: str, source: Source) -> Tensor:
    """The largest size of each row's result (rows,)."""
    weight, bias = params[f"{name}.weight"], params.get(f"{name}.bias")
    constant = source.constant(weight)
    sizes = math.sqrt(source.width) * torch.linalg.vector_norm(source.seen(weight), dim=1)
    return sizes + (constant if bias is None else constant + bias).abs()


def spread(params: Params, query: str, key: str, head_dim: int, source: Source, keys: Source | None = None) -> float:
    """How far apart two scores of one row can be, over all heads; what all keys share makes no difference.

    Queries read `source`, and so do keys unless they read `keys` of the same width.
    """
    wq, bq = _projected(params, query, head_dim, source)
    wk, _ = _projected(params, key, head_dim, keys or source)
    wk, d = wk.repeat_interleave(wq.shape[0] // wk.shape[0], dim=0), source.width
    sizes, directions = torch.linalg.eigh(wk @ wk.mT)
    root = directions * sizes.clamp(min=0).sqrt()[:, None]
    product = _singular(root.mT @ wq)  # the largest singular value of Wk' Wq
    shift = torch.linalg.vector_norm((wk * bq[..., None]).sum(1), dim=1)
    return float((2 * (d * product + math.sqrt(d) * shift)).max())


def turned_spread(params: Params, query: str, key: str, head_dim: int, source: Source) -> float:
    """The same where positions turn the pairs of q and of k, so that keys share nothing, not even their bias.

    Any balance between the pairs' lengths gives a bound.
    """
    (wq, bq), (wk, bk) = (_projected(params, name, head_dim, source) for name in (query, key))
    wk, bk = (t.repeat_interleave(wq.shape[0] // wk.shape[0], dim=0) for t in (wk, bk))
    sizes = [_pairs(w).clamp(min=1e-6) for w in (wq, wk)]
    balance, d = (sizes[1] / sizes[0]).sqrt(), source.width
    longest = [
        _singular(w * scale[..., None]) + torch.linalg.vector_norm(b * scale, dim=1) / math.sqrt(d)
        for w, b, scale in ((wq, bq, balance), (wk, bk, 1 / balance))
    ]
    return float((2 * d * longest[0] * longest[1]).max())


def _projected(params: Params, name: str, head_dim: int, source: Source) -> tuple[Tensor, Tensor]:
    """What reads n, and what is added, of each head: (heads, head_dim, width) and (heads, head_dim)."""
    weight, bias = params[f"{name}.weight"], params.get(f"{name}.bias")
    constant = source.constant(weight)
    constant = constant if bias is None else constant + bias
    return source.seen(weight).reshape(-1, head_dim, source.width), constant.reshape(-1, head_dim)


def _singular(matrices: Tensor) -> Tensor:
    """The largest singular value of each, from the small Gram matrix."""
    return torch.linalg.eigvalsh(matrices @ matrices.mT)[:, -1].clamp(min=0).sqrt()


def _pairs(heads: Tensor) -> Tensor:
    """The size of each turned pair of rows, at both of its rows."""
    half = heads.shape[1] // 2
    squares = heads.pow(2).sum(2)
    return (squares[:, :half] + squares[:, half:]).sqrt().repeat(1, 2)
