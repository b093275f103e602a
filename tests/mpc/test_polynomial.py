"""Bookkeeping of products of bits."""

from __future__ import annotations

from puma.mpc.polynomial import ONE, bit, multiplied, products, subsets, times

X, Y, Z = bit("x"), bit("y"), bit("z")


def test_equal_monomials_cancel() -> None:
    assert times(X, X) == X
    assert times(X ^ Y, X ^ Y) == X ^ Y
    assert times(X ^ ONE, X) == frozenset()
    assert times() == ONE


def test_what_must_be_opened_and_dealt() -> None:
    p, q = times(X, Y) ^ Z, times(X ^ ONE, Y ^ ONE, Z)
    assert multiplied([p]) == ["x", "y"] and multiplied([Z]) == []
    assert products([p]) == [frozenset("xy")]
    assert set(products([p, q])) == {frozenset(s) for s in ("xy", "xz", "yz", "xyz")}
    assert [len(s) for s in products([q])] == [2, 2, 2, 3]


def test_subsets() -> None:
    assert {"".join(sorted(s)) for s in subsets(frozenset("abc"))} == {"", "a", "b", "c", "ab", "ac", "bc", "abc"}
