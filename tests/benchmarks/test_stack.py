"""Daemons over an emulated network, asked, asked through the gateway, killed and asked again."""

from __future__ import annotations

import pytest

from benchmarks import stack

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def test_a_stack_over_a_network() -> None:
    found = stack.measure("lan", False, 3, 2)  # medians: one run of each says little where much else runs
    assert found["network"] == "lan" and found["tls"]
    assert 0 < found["first_seconds"] < found["session_seconds"]
    assert 0 < found["gateway_first_seconds"] < found["gateway_seconds"]
    assert found["tokens_a_second"] > 0 and found["together_a_second"] > 0


def test_a_party_that_is_killed_comes_back() -> None:
    assert [row["party"] for row in stack.recovery(1)] == ["P0", "P1", "P2"]
