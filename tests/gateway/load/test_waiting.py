"""Keys take turns, and each key's requests go in their order; numbers are as Prometheus reads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from puma.gateway.load.metrics import Metrics
from puma.gateway.load.waiting import Waiting


def job(name: str) -> Any:
    return SimpleNamespace(key=SimpleNamespace(name=name[0]), name=name)


def test_keys_take_turns() -> None:
    waiting = Waiting()
    for name in ("a1", "a2", "a3", "b1", "a4", "c1", "b2"):
        waiting.put(job(name))
    told = [each.name for each in waiting]
    assert told == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    first = waiting.take()
    assert first.name == "a1"
    waiting.put(first, first=True)
    assert [each.name for each in waiting] == told and len(waiting) == 7
    taken = [waiting.take().name for _ in range(4)]
    waiting.put(job("d1"))
    assert taken + [waiting.take().name for _ in range(4)] == [*told[:6], "d1", "a4"]
    assert not waiting and not waiting.clear()
    waiting.put(job("a1"))
    assert [each.name for each in waiting.clear()] == ["a1"] and not len(waiting)


def test_numbers_for_prometheus() -> None:
    metrics = Metrics()
    metrics.add("puma_gateway_requests_total", path="/v1/models", status=200)
    metrics.add("puma_gateway_requests_total", path="/v1/models", status=200)
    metrics.add("puma_gateway_tokens_total", 7, kind="new")
    for value in (1, 2, 3, 500):
        metrics.observe("puma_gateway_batch_size", value)
    metrics.gauges["puma_gateway_queue"] = lambda: 3
    lines = metrics.text().splitlines()
    assert 'puma_gateway_requests_total{path="/v1/models",status="200"} 2' in lines
    assert 'puma_gateway_tokens_total{kind="new"} 7' in lines and "puma_gateway_queue 3" in lines
    buckets = [line.partition(" ")[2] for line in lines if line.startswith("puma_gateway_batch_size_bucket")]
    assert buckets == ["1", "2", "3", "3", "3", "3", "3", "3", "4"]
    assert "puma_gateway_batch_size_sum 506" in lines and "puma_gateway_batch_size_count 4" in lines
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) and all(f"# HELP {name} " in metrics.text() for name in names)
    assert metrics.text().endswith("\n")
