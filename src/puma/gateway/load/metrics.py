"""What a gateway does, in numbers, in Prometheus' text format. Numbers and fixed labels: never who asked, nor what."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

COUNTERS = {
    "puma_gateway_requests_total": "Requests that were answered or refused, by path and HTTP status.",
    "puma_gateway_tokens_total": "Tokens: of prompts, of these what the parties held already (cached), and new ones.",
    "puma_gateway_rounds_total": "Rounds between the evaluators.",
    "puma_gateway_bytes_total": "Bytes that the parties sent for requests.",
    "puma_gateway_failures_total": "Sessions that ended by an error, by its class.",
}
GAUGES = {
    "puma_gateway_queue": "Requests that wait for a session.",
    "puma_gateway_running": "Requests that are with the parties now, and take their steps together.",
    "puma_gateway_sessions": "Sessions with the parties.",
    "puma_gateway_draining": "Whether it is about to stop.",
}
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
HISTOGRAMS = {
    "puma_gateway_first_token_seconds": ("From a request's arrival to its first result.", SECONDS),
    "puma_gateway_request_seconds": ("From a request's arrival to its end.", SECONDS),
    "puma_gateway_batch_size": ("Requests with the parties when one began.", (1, 2, 4, 8, 16, 32, 64, 128)),
}


class Histogram:
    """How many values were at most as large as each bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> list[str]:
        """As Prometheus reads them: counts add up."""
        found, total = list[str](), 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            found.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*found, f"{name}_sum {self._sum:.17g}", f"{name}_count {total}"]


class Metrics:
    """Counters and histograms add up; what a gauge shows is asked when somebody looks. For all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], float] = {}
        self._histograms = {name: Histogram(bounds) for name, (_, bounds) in HISTOGRAMS.items()}
        self.gauges: dict[str, Callable[[], float]] = {}

    def add(self, name: str, amount: float = 1, **labels: str | int) -> None:
        """Count something."""
        key = name, _labelled(labels)
        assert name in COUNTERS
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + amount

    def observe(self, name: str, value: float) -> None:
        """One more value of a histogram."""
        with self._lock:
            self._histograms[name].observe(value)

    def text(self) -> str:
        """Everything."""
        lines = list[str]()
        with self._lock:
            for name, what in COUNTERS.items():
                lines += [f"# HELP {name} {what}", f"# TYPE {name} counter"]
                found = sorted((labels, value) for (counter, labels), value in self._counts.items() if counter == name)
                lines += [f"{name}{labels} {value:.17g}" for labels, value in found]
            for name, (what, _) in HISTOGRAMS.items():
                lines += [f"# HELP {name} {what}", f"# TYPE {name} histogram", *self._histograms[name].lines(name)]
        for name, what in GAUGES.items():
            lines += [f"# HELP {name} {what}", f"# TYPE {name} gauge"]
            lines += [f"{name} {self.gauges[name]():.17g}"] if name in self.gauges else []
        return "\n".join(lines) + "\n"


def _labelled(labels: Mapping[str, str | int]) -> str:
    inside = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""
