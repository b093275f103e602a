"""What a quantised tensor is to those who read it: parts in the file, the shape of what they make, and how to make it.

The decoders here map stored tensors to one float32 matrix (out, in), as a Linear has it. They must not know files,
families or shares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from puma.errors import TensorError, UnsupportedModel

WORD = 32  # bits of a packed word
PART = 1 << 20  # numbers that are unpacked at a time: what is made on the way takes some times as much
NIBBLES, BLOCK, HEAD = "q4_z", 32, 4  # a kind of kernels.stored, its numbers in a block, and bytes before these
ORIGINAL = "use the original checkpoint, in fp32, fp16 or bf16"
DAMAGED = "the checkpoint is damaged, or its quantization_config is another's"
Settings = Mapping[str, Any]


class Header(NamedTuple):
    """A tensor that is not read yet; `kind` is its number format as safetensors names it."""

    shape: tuple[int, ...]
    kind: str


Headers = Mapping[str, Header]
Read = Callable[[str], Tensor]


class Nibbles(NamedTuple):
    """Blocks of a matrix's own integers, as `in_nibbles` makes them: `rows` of all parts, if the parts at the places
    `small` are such that it `fits`."""

    small: tuple[int, ...]
    fits: Callable[..., bool]
    rows: Callable[..., Tensor]


@dataclass(frozen=True)
class Packed:
    """One float32 tensor of this shape, (out, in): `decode` makes it of the tensors of these names, in their order."""

    shape: tuple[int, ...]
    parts: tuple[str, ...]
    decode: Callable[..., Tensor]
    whole: bool = False  # whether the name that is found is the tensor's own, and not its module's
    nibbles: Nibbles | None = None  # its own integers, where these have four bits


def fields(words: Tensor, bits: int, count: int, dim: int) -> Tensor:
    """`count` unsigned numbers of `bits` bits that lie densely along `dim` of int32 words, the lowest bits first.

    A number may lie across two words, as those of three bits do.
    """
    start = torch.arange(count) * bits
    word, low = start // WORD, (start % WORD).to(torch.int32)
    kept = (WORD - low).clamp(max=bits)
    along = [-1 if axis == dim else 1 for axis in range(words.ndim)]
    found = words.index_select(dim, word)
    found = found.bitwise_right_shift_(low.reshape(along)).bitwise_and_(_mask(kept).reshape(along))
    (split,) = torch.nonzero(kept < bits, as_tuple=True)
    if len(split):
        rest = words.index_select(dim, word[split] + 1) & _mask(bits - kept[split]).reshape(along)
        found.index_add_(dim, split, rest << kept[split].reshape(along))
    return found


def _mask(bits: Tensor) -> Tensor:
    return ((torch.ones_like(bits, dtype=torch.int64) << bits) - 1).to(torch.int32)


def parts_of(count: int, width: int, step: int = 1) -> Iterator[slice]:
    """Rows of this width in parts of about PART numbers, each of a multiple of `step` rows but for the last one."""
    size = max(PART // (width * step), 1) * step
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def fit_nibbles(group: Tensor, scales: Tensor) -> bool:
    """Whether inputs of these groups lie in blocks of one group each, and scales are halves."""
    alike = len(group) % BLOCK == 0 and bool((group.reshape(-1, BLOCK) == group[::BLOCK, None]).all())
    return alike and torch.equal(scales.to(torch.float16).to(torch.float32), scales.to(torch.float32))


def in_nibbles(integers: Callable[[slice], Tensor], group: Tensor, point: Tensor, scales: Tensor) -> Tensor:
    """scale (q - zero) as blocks of kind NIBBLES (out, bytes), of the integers q (inputs, out) that are asked for part
    by part, the group of each input, and zeros and scales (groups, out)."""
    first, out = group[::BLOCK], scales.shape[1]
    found = torch.zeros(out, len(first), HEAD + BLOCK // 2, dtype=torch.uint8)
    found[..., :2] = scales[first].T.to(torch.float16).contiguous().view(torch.uint8).reshape(out, -1, 2)
    found[..., 2] = point[first].T
    for part in parts_of(len(group), out, BLOCK):
        halves = integers(part).to(torch.uint8).reshape(-1, 2, BLOCK // 2, out)
        found[:, part.start // BLOCK : part.stop // BLOCK, HEAD:] = (halves[:, 0] | halves[:, 1] << 4).permute(2, 0, 1)
    return found.reshape(out, -1)


def times_scales(found: Tensor, block: tuple[int, int], scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """scale (q - zero), in place, where one scale and one zero belong to each block of rows and columns.

    The last blocks may be cut off. No table of the matrix's size is made.
    """
    rows, columns = -(-found.shape[0] // block[0]), -(-found.shape[1] // block[1])
    scale, *zeros = (
        table.to(torch.float32).reshape(rows, columns).repeat_interleave(block[0], 0)[: found.shape[0]]
        for table in ((scale,) if zero is None else (scale, zero))
    )
    for i in range(columns):
        part = found[:, i * block[1] : (i + 1) * block[1]]
        for table in zeros:
            part -= table[:, i : i + 1]
        part *= scale[:, i : i + 1]
    return found


def words(count: int, bits: int) -> int:
    """How many words so many numbers take."""
    return -(-count * bits // WORD)


def modules_with(headers: Headers, part: str) -> Iterator[str]:
    """The modules that have a part of this name."""
    for name in headers:
        if name.endswith(f".{part}"):
            yield name.removesuffix(f".{part}")


def need(headers: Headers, module: str, *parts: str) -> list[Header]:
    """The headers of a module's parts; TensorError if one is missing."""
    for part in parts:
        if f"{module}.{part}" not in headers:
            raise TensorError(f"{module} is quantised and lacks {part}", DAMAGED)
    return [headers[f"{module}.{part}"] for part in parts]


def expect(module: str, part: str, header: Header, shape: tuple[int, ...], *kinds: str) -> None:
    """TensorError unless a part has this shape and one of these number formats."""
    if header.shape != shape:
        raise TensorError(f"{module}.{part} has shape {list(header.shape)}, expected {list(shape)}", DAMAGED)
    if kinds and header.kind not in kinds:
        raise TensorError(f"{module}.{part} holds {header.kind} numbers, expected {' or '.join(kinds)}", DAMAGED)


def refuse(what: str, implemented: str) -> None:
    """Say which way of quantising is not implemented."""
    raise UnsupportedModel(f"the checkpoint is quantised {what}", f"puma reads {implemented}; or {ORIGINAL}")


def named(keys: tuple[str, ...], settings: Settings, module: str) -> bool:
    """Whether a list of the settings, such as modules_to_not_convert, names a module.

    It names modules above it, expressions for it, or its end, as transformers 5.23 reads such lists
    (quantizers/quantizers_utils.py).
    """
    boundary = r"(?:(?<=\.)|(?=\.|$))"
    patterns = [pattern for key in keys for pattern in settings.get(key) or ()]
    try:
        return any(re.match(rf"(?:{each}){boundary}", module) or module.endswith(each) for each in patterns)
    except (re.error, TypeError, AttributeError) as error:
        what = f"config.json: {' or '.join(keys)} is no list of names ({error})"
        raise UnsupportedModel(what, "check the folder's config.json") from error
