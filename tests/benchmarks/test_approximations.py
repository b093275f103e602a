"""The page of approximations: figures of every profile, within what is known of them."""

from __future__ import annotations

import pytest

from benchmarks.approximations import FUNCTIONS, fixed, measured, table
from puma.nn import splines

BOUNDS = {"gelu": splines.GELU.bound, "silu": splines.SILU.bound, "exp": splines.EXP.bound, "softmax": 2e-3}
PUBLISHED = {"gelu": 0.0199, "silu": 0.0719, "exp": 0.0085}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_figures_are_those_that_are_known(name: str) -> None:
    found = {profile: measured(name, profile) for profile in FUNCTIONS[name].profiles}
    assert found["spline"]["own_max"] == 0 < found["spline"]["max"] < BOUNDS[name]
    assert found["puma"]["max"] > 5 * found["spline"]["max"] and found["puma"]["rounds"] > found["spline"]["rounds"]
    if name in PUBLISHED:
        assert found["puma"]["own_max"] == pytest.approx(PUBLISHED[name], abs=1e-4)
    for profile in found:
        assert fixed(FUNCTIONS[name], profile).shape == FUNCTIONS[name].inputs.shape
        assert found[profile]["online_bits"] > 0
    lines = table({name: found}).splitlines()
    assert len(lines) == 2 + len(found) and all(line.count("|") == 8 for line in lines)
