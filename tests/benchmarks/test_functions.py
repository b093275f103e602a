"""Every function that is published on its own: right, and at the declared cost, by three processes over a network."""

from __future__ import annotations

import pytest

from benchmarks import function_run
from benchmarks.functions import FUNCTIONS, operands
from benchmarks.network import Emulated
from puma.measure.forecast import NETWORKS
from puma.mpc.fixed import ACTIVATION

BOUNDS = {"gelu": 6e-4, "silu": 1.1e-3, "exp": 4e-3, "softmax": 2e-3, "less": 0.0}


@pytest.mark.processes
def test_functions() -> None:
    with Emulated(NETWORKS["lan"]) as network, function_run.trio(network.route) as parties:
        for name, function in FUNCTIONS.items():
            found = function_run.measure(parties, name, 1, 480)
            assert found["max_error"] <= BOUNDS.get(name, 2e-4), name
            assert found["bits"] > 0 and found["rounds"] >= 1 and found["cpu_seconds"] > 0
            curve = found.get("curve")
            if curve:
                assert len(curve) == function_run.BUCKETS and max(y for _, y in curve) == found["max_error"]
                assert curve[0][0] == pytest.approx(function.reach[0], abs=2**-ACTIVATION)


def test_operands_cover_the_range() -> None:
    for function in FUNCTIONS.values():
        words = operands(function, 1000)
        assert [w.numel() for w in words] == [
            1000 if len(s) == 1 else s[0] * s[1] * (*s, 1)[2] for s in function.shapes
        ]
        low, high = (end * 2**ACTIVATION for end in function.reach)
        for w in words:
            assert low <= int(w.min()) < low + 0.01 * (high - low) and high >= int(w.max()) > high - 0.01 * (high - low)
