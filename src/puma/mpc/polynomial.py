"""Polynomials over GF(2) in named bits: which products of masks a one-round evaluation needs.

A polynomial is a set of monomials, to be xored; a monomial a set of names, to be multiplied; the empty one is 1.
Pure bookkeeping: this file must not know shares or parties.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import combinations

Monomial = frozenset[str]
Polynomial = frozenset[Monomial]

ONE: Polynomial = frozenset([frozenset()])


def bit(name: str) -> Polynomial:
    """The polynomial of one bit."""
    return frozenset([frozenset([name])])


def times(*factors: Polynomial) -> Polynomial:
    """The product; equal monomials cancel in pairs."""
    result = ONE
    for factor in factors:
        terms: set[Monomial] = set()
        for a in result:
            for b in factor:
                terms ^= {a | b}
        result = frozenset(terms)
    return result


def products(polynomials: Iterable[Polynomial]) -> list[Monomial]:
    """All sets of two names or more inside a monomial, small ones first: the products of masks to be dealt."""
    return _products(tuple(polynomials))


@cache
def _products(polynomials: tuple[Polynomial, ...]) -> list[Monomial]:
    monomials = {m for p in polynomials for m in p}
    found = {s for m in monomials for s in subsets(m) if len(s) > 1}
    return sorted(found, key=lambda s: (len(s), sorted(s)))


def multiplied(polynomials: Iterable[Polynomial]) -> list[str]:
    """The names that occur in a product, sorted: the bits to be opened under a mask."""
    return sorted({name for p in polynomials for m in p if len(m) > 1 for name in m})


def subsets(monomial: Monomial) -> Iterator[Monomial]:
    """All its subsets, the empty one first."""
    names = sorted(monomial)
    for size in range(len(names) + 1):
        yield from map(frozenset, combinations(names, size))
