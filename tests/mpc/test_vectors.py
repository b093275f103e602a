"""Known answers: what each party holds after every case, for fixed keys and inputs.

A change of any number here is a change of protocol: parties of two versions no longer understand each other. After a
deliberate one, write the file again with `python -m tests.mpc.test_vectors`. Each case has, for each rank, the first
words of every secret in its result: l1 and l2, or m and a mask, for a share; a part; bits; one-hot words and a digit.
Spline tables must be the same at all parties, too, to the last bit: "tables" has their digests.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from puma import kernels
from puma.mpc.share import Additive, Share
from puma.nn import roots, splines
from tests.case import Case, parts, secrets_in
from tests.cases import CASES
from tests.watch import once

PATH = Path(__file__).parents[1] / "vectors" / "protocols.json"
WORDS = 3
SPLINES = [s for s in vars(splines).values() if isinstance(s, splines.Spline)]


def held_words(result: Any) -> list[list[str] | None]:
    """The first words of everything held, reduced to the ring, in hexadecimal."""
    rings = [s.bits if isinstance(s, Share | Additive) else 64 for s in secrets_in(result) for _ in parts(s)]
    return [
        None
        if t is None
        else [_hex(v, bits) for v in kernels.reduce(t.reshape(-1)[:WORDS].contiguous(), bits).tolist()]
        for t, bits in zip(parts(result), rings, strict=True)
    ]


def _hex(word: int, bits: int) -> str:
    return f"{word % (1 << bits):x}"


def answers(case: Case) -> list[Any]:
    """By rank."""
    return [held_words(result) for result in once(case).results]


def digests() -> dict[str, str]:
    """SHA-256 of every table, as little-endian words."""
    rows = [*SPLINES, roots._reciprocal_spline(6), roots._rsqrt_spline(1.0, 56)]
    return {s.name: hashlib.sha256(s.tables.numpy().astype("<i8").tobytes()).hexdigest() for s in rows}


def write() -> None:
    """Write all vectors again."""
    lines = [f"  {json.dumps(case.name)}: {json.dumps(answers(case))}" for case in CASES]
    lines.append(f'  "tables": {json.dumps(digests())}')
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")


VECTORS = json.loads(PATH.read_text()) if PATH.exists() else {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_known_answers(case: Case) -> None:
    assert answers(case) == VECTORS[case.name]


def test_no_vector_is_left_over() -> None:
    assert list(VECTORS) == [case.name for case in CASES] + ["tables"]


def test_tables_are_the_known_ones() -> None:
    assert digests() == VECTORS["tables"]


if __name__ == "__main__":
    write()
