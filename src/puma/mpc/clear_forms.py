"""What primitives do at a party that holds values themselves, and the decorator that lets them: one form for each.

`@in_clear(form)` above a primitive sends it to its form when the party is clear, with the same arguments; so the text
of a protocol knows nothing of the clear run. A form does at once what the three parties would have done together.
Truncation rounds to nearest, the centre of what shares can give: a secure result differs by one unit at most. A
primitive without a form is made of others, or draws masks, which a clear party refuses. This file must not know nn.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from puma import kernels
from puma.kernels.shapes import broadcast
from puma.mpc.clear import Clear, ClearChoice, ClearParty, ClearSum, Source, held
from puma.mpc.party import Party
from puma.mpc.polynomial import Polynomial
from puma.mpc.share import Bits, MaskedBit, Number, Secret, encode
from puma.mpc.zones import CERTAIN_ROW, certain_lift

F = TypeVar("F", bound=Callable[..., Any])
EXACT = 2.0**53  # doubles hold every whole number below


def in_clear(form: Callable[..., Any]) -> Callable[[F], F]:
    """A primitive that at a clear party is `form`: of the same arguments, with the result of the whole protocol."""

    def attach(primitive: F) -> F:
        # A protocol is driven by whoever called it: its form must be a generator, too, though it yields nothing.
        instead = _at_once(form) if inspect.isgeneratorfunction(primitive) else form

        @wraps(primitive)
        def dispatched(*arguments: Any, **named: Any) -> Any:
            if not ClearParty.made:  # as in every party's process, where this is asked ten times a round
                return primitive(*arguments, **named)
            first: Any = arguments[0] if arguments else None
            first = cast(Any, first[0]) if type(first) is tuple else first
            holder = getattr(first, "party", None) or _holder(arguments)  # of most the first one's, and quick
            return (instead if holder.clear else primitive)(*arguments, **named)

        dispatched.form = form  # type: ignore[attr-defined]  # for the test that looks for primitives without one
        return cast(F, dispatched)

    return attach


def _at_once(form: Callable[..., Any]) -> Callable[..., Generator[Any, Any, Any]]:
    def protocol(*arguments: Any, **named: Any) -> Generator[Any, Any, Any]:
        return form(*arguments, **named)
        yield  # never reached: it makes this a generator

    return protocol


def _holder(arguments: Sequence[Any]) -> Party:
    """Whose secrets these arguments are: a party, a secret, or the first one in a tuple or a mapping."""
    for argument in arguments:
        first = cast(Any, argument[0] if type(argument) is tuple else argument)
        party: Party | None = getattr(first, "party", None)  # of nearly all, and quick
        if party is None and isinstance(first, Mapping):
            first = next(iter(cast("Mapping[str, Any]", first).values()))
            party = getattr(first, "party", None)
        if party is None and isinstance(first, Party):
            party = first
        if party is not None:
            return party
    raise TypeError("no party among the arguments of a primitive")


# -- forms ----------------------------------------------------------------------------------------------------------


def public(party: ClearParty, value: Tensor | Number, shape: Sequence[int], bits: int, frac: int) -> Clear:
    """A public constant."""
    zero = torch.zeros(tuple(shape), dtype=torch.int64, device=party.device)
    return held(party, zero, bits, frac).shifted(encode(value, frac, party.device))


def truncated(x: Clear, shift: int) -> Clear:
    """Drop low bits, rounding to nearest."""
    return Clear(_of(x), *_rounded(x.signed, x.truth, shift), x.bits - shift, x.frac - shift, x.source) if shift else x


def product(x: Clear, y: Clear, op: Callable[[Tensor, Tensor], Tensor]) -> ClearSum:
    """x o y for an elementwise product."""
    bits, frac = min(x.bits, y.bits), x.frac + y.frac
    return ClearSum(_of(x), op(x.m, y.m), op(x.truth, y.truth), bits, frac, _source(x, y))


def square(x: Clear) -> ClearSum:
    """x x, elementwise."""
    return product(x, x, torch.mul)


def matmul(x: Clear, y: Clear) -> ClearSum:
    """x @ y; in doubles where these hold every partial sum, which lengths of rows and columns tell."""
    bits, frac, source = min(x.bits, y.bits), x.frac + y.frac, _source(x, y)
    a, b = x.settled().truth, y.settled().truth
    longest = [_longest(t, d) for t, d in ((a, -1), (b, -2))]
    if longest[0] * longest[1] < EXACT:
        exact = a @ b
        truth = exact if x.exact and y.exact else x.truth @ y.truth
        return ClearSum(_of(x), exact.to(torch.int64), truth, bits, frac, source)
    return ClearSum(_of(x), kernels.matmul(x.signed, y.signed, bits), x.truth @ y.truth, bits, frac, source)


def reshare(*zs: ClearSum) -> list[Clear]:
    """Untruncated values as values."""
    return open_truncate(*((z, 0) for z in zs))


def open_truncate(*pairs: tuple[ClearSum, int]) -> list[Clear]:
    """Untruncated values less low bits, each in the ring that is smaller by as many."""
    return [
        Clear(_of(z), *_rounded(kernels.signed(z.part, z.bits), z.truth, s), z.bits - s, z.frac - s, z.source)
        for z, s in pairs
    ]


def open_coarsely(z: ClearSum, shift: int, places: int) -> tuple[Clear, Clear]:
    """An untruncated value less low bits, and less more of them."""
    (x,) = open_truncate((z, shift))
    return x, truncated(x, places)


def lift(*pairs: tuple[Clear, int], least: int = 2) -> list[Clear]:
    """The same words in larger rings; those beyond what can be lifted come out wrong, as they do from shares."""
    results: list[Clear] = []
    for x, bits in pairs:
        low = 1 << (x.bits - least)
        words = kernels.signed(x.m + low, x.bits) - low
        results.append(Clear(_of(x), words, x.truth, bits, x.frac, x.source))
    return results


def raised(x: Clear, bits: int, least: int = 2) -> Clear:
    """The same as a lift; what does not fit is noted."""
    if least == 2:
        x.party.note_range("value", x, 2.0 ** (x.bits - x.frac - 2))
    return lift((x, bits), least=least)[0].settled()


def whole(x: Clear) -> ClearSum:
    """The same as a sum of one."""
    return x.additive()


def times(x: Clear, y: Clear) -> ClearSum:
    """x y, elementwise."""
    return product(x, y, torch.mul)


def squared(x: Clear) -> ClearSum:
    """x x, elementwise."""
    return square(x)


def sign(x: Clear) -> Bits:
    """The top bit of x in its ring."""
    return Bits(x.party, (x.signed < 0).to(torch.int64))


def below(x: Clear, thresholds: Sequence[int]) -> Bits:
    """x < t along a new last dimension."""
    words = x.m.unsqueeze(-1) - torch.tensor(thresholds, dtype=torch.int64, device=x.device)
    return Bits(x.party, (kernels.signed(words, x.bits) < 0).to(torch.int64))


def equal(x: Clear, y: Clear) -> Bits:
    """x == y in their ring."""
    return Bits(x.party, ((x - y).signed == 0).to(torch.int64))


def evaluate(bits: Mapping[str, Bits], *polynomials: Polynomial) -> list[Bits]:
    """Polynomials of bits."""
    party = next(iter(bits.values())).party
    shape = broadcast(*(tuple(b.shape) for b in bits.values()))
    results: list[Bits] = []
    for polynomial in polynomials:
        total = torch.zeros(shape, dtype=torch.int64, device=party.device)
        for monomial in polynomial:
            term = torch.ones_like(total)
            for name in monomial:
                term = term * bits[name].part
            total = total ^ term
        results.append(Bits(party, total))
    return results


def open_masked(*bs: Bits) -> list[MaskedBit]:
    """Bits are open as they are."""
    return [MaskedBit(b.party, b.part) for b in bs]


def select(bit: MaskedBit, x: Clear) -> ClearSum:
    """x where the bit is set, else 0."""
    return ClearSum(_of(x), bit.word * x.m, bit.word * x.truth, x.bits, x.frac, x.source)


def select_all(bits: Sequence[MaskedBit], x: Clear) -> ClearSum:
    """x where all bits are set, else 0."""
    set_ = math.prod((bit.word for bit in bits), start=torch.ones_like(x.m))
    return ClearSum(_of(x), set_ * x.m, set_ * x.truth, x.bits, x.frac, x.source)


def to_arithmetic(bit: MaskedBit, bits: int) -> ClearSum:
    """A bit as a number."""
    return ClearSum(_of(bit), bit.word, bit.word.double(), bits, 0)


def maximum(x: Clear, dim: int = -1, quick: bool = False) -> Clear:
    """The largest entry along a dimension."""
    return _largest(x, dim)[0]


def argmax(x: Clear, index: Clear, quick: bool = False) -> tuple[Clear, Clear]:
    """The largest entry along the last dimension, and its entry of `index`."""
    won, at = _largest(x, -1)
    return won, index.apply(lambda t: t.gather(-1, at.unsqueeze(-1)).squeeze(-1))


def retrieve(choice: ClearChoice, table: Clear) -> ClearSum:
    """The chosen rows of a table."""
    source = _source(table, table)
    return ClearSum(_of(choice), table.m[choice.ids], table.truth[choice.ids], choice.bits, table.frac, source)


def note_lift(x: Clear, owners: Tensor | None = None) -> None:
    """Count what is too large to be lifted for certain."""
    if x.party.on_watch is not None:
        x.party.on_watch.count((x.signed.abs() >= certain_lift(x.bits)).to(torch.int64), owners)


def note_rows(sums: Clear, off: int) -> None:
    """Count rows that are too long for certain."""
    if sums.party.on_watch is not None:
        sums.party.on_watch.count((sums.signed - off >= CERTAIN_ROW).to(torch.int64))


def _of(secret: Secret | MaskedBit) -> ClearParty:
    party = secret.party
    assert isinstance(party, ClearParty)
    return party


def _longest(t: Tensor, dim: int) -> float:
    """The length of the longest row or column; no copy is made, for this may be a matrix of weights."""
    lengths = cast(Tensor, torch.linalg.vector_norm(t, dim=dim))  # type: ignore[reportUnknownMemberType]
    return float(lengths.max()) if t.numel() else 0.0


def _source(x: Clear, y: Clear) -> Source:
    named = next((z.source.name for z in (y, x) if z.source.name and not z.source.order), "")
    return _of(x).used(named) if named else max(x.source, y.source)


def _rounded(words: Tensor, truth: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    return words if shift == 0 else (words + (1 << (shift - 1))) >> shift, truth / 2.0**shift


def _largest(x: Clear, dim: int) -> tuple[Clear, Tensor]:
    """The largest entry along a dimension, and where it is; notes how far entries lie apart."""
    words, at = x.signed.max(dim)
    spread = float((x.truth.amax(dim) - x.truth.amin(dim)).max()) if x.numel() else 0.0
    _of(x).note("spread of a row", x.source, spread / 2.0**x.frac, 2.0 ** (x.bits - 1 - x.frac))
    return Clear(_of(x), words, words.double(), x.bits, x.frac, x.source, exact=True), at
