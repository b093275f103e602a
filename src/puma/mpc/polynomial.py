"""Polynomials over GF(2) in named bits: which products of masks a one-round evaluation needs.

A polynomial is a set of monomials, to be xored; a monomial a set of names, to be multiplied; the empty one is 1.
Pure bookkeeping: this file must not know shares or parties, and gives `kernels.xor_of_products` its terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import combinations

import torch
from torch import Tensor

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
    return _multiplied(tuple(polynomials))


@cache
def _multiplied(polynomials: tuple[Polynomial, ...]) -> list[str]:
    return sorted({name for p in polynomials for m in p if len(m) > 1 for name in m})


def subsets(monomial: Monomial) -> Iterator[Monomial]:
    """All its subsets, the empty one first."""
    names = sorted(monomial)
    for size in range(len(names) + 1):
        yield from map(frozenset, combinations(names, size))


def products_of(polynomials: Iterable[Polynomial]) -> tuple[Tensor, Tensor]:
    """Terms and their ends for `kernels.xor_of_products`: of masks, as `multiplied` names them, every product."""
    return _products_of(tuple(polynomials))


@cache
def _products_of(polynomials: tuple[Polynomial, ...]) -> tuple[Tensor, Tensor]:
    at = {name: i for i, name in enumerate(multiplied(polynomials))}
    return _laid([[[at[name] for name in sorted(product)]] for product in products(polynomials)])


def shares_of(polynomials: Iterable[Polynomial], names: Sequence[str], first: bool) -> tuple[Tensor, Tensor]:
    """Terms and their ends for one evaluator's half of each polynomial in bits of these names.

    Rows are, one after the other: the opened bits and this evaluator's masks, as `multiplied` names them, its halves
    of the `products` of masks, and its halves of all bits. A product of bits is the xor over all subsets of its masks;
    what holds no mask counts at the `first` evaluator.
    """
    return _shares_of(tuple(polynomials), tuple(names), first)


@cache
def _shares_of(polynomials: tuple[Polynomial, ...], names: tuple[str, ...], first: bool) -> tuple[Tensor, Tensor]:
    opened = {name: i for i, name in enumerate(multiplied(polynomials))}
    own = {frozenset([name]): len(opened) + i for name, i in opened.items()}
    own |= {product: 2 * len(opened) + i for i, product in enumerate(products(polynomials))}
    bits = {name: len(opened) + len(own) + i for i, name in enumerate(names)}

    def terms(monomial: Monomial) -> Iterator[list[int]]:
        if len(monomial) == 1:
            yield [bits[next(iter(monomial))]]
            return
        for masks in subsets(monomial):
            if masks or first:
                yield [opened[name] for name in sorted(monomial - masks)] + ([own[masks]] if masks else [])

    return _laid([[term for monomial in polynomial for term in terms(monomial)] for polynomial in polynomials])


def _laid(results: list[list[list[int]]]) -> tuple[Tensor, Tensor]:
    """Terms of all results below each other, each filled up with -1, and where those of each result end."""
    every = [term for terms in results for term in terms]
    longest = max(map(len, every), default=1) or 1
    laid = torch.tensor([term + [-1] * (longest - len(term)) for term in every], dtype=torch.int64)
    ends = torch.tensor([len(terms) for terms in results], dtype=torch.int64).cumsum(0)
    return laid.reshape(-1, longest), ends
