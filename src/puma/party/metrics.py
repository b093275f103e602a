"""Counters of a party, in Prometheus' text format. It knows numbers and fixed labels, never who asked or what.

Thirty lines instead of a dependency: counters and gauges only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
COUNTERS = {
    "puma_sessions_total": "Sessions that began.",
    "puma_sessions_failed_total": "Sessions that ended by an error, by its class.",
    "puma_refused_total": "Dialers that were refused a link.",
    "puma_requests_total": "Requests that were answered, by their kind.",
    "puma_request_seconds_total": "Seconds that these took.",
    "puma_tokens_total": "Tokens of prompts, new ones, and drafts.",
    "puma_rounds_total": "Rounds between the evaluators.",
    "puma_sent_bytes_total": "Bytes that this party sent for requests.",
    "puma_received_bytes_total": "Bytes of models that owners uploaded.",
}
GAUGES = {
    "puma_sessions_active": "Sessions now.",
    "puma_requests_active": "Requests that are computed in company, or wait for their next step.",
    "puma_steps": "Steps that the parties took together since they last met.",
    "puma_models": "Models that are served.",
    "puma_kept_bytes": "Bytes of memory for requests that later ones may go on from.",
    "puma_preprocessing_bytes": "Bytes of disk for what has been prepared ahead.",
    "puma_resident_bytes": "Memory of this process.",
    "puma_peer_up": "Whether another party can be reached.",
}


class Metrics:
    """Counters add up; what a gauge shows is asked when somebody looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], float] = {}
        self.gauges: dict[str, Callable[[], Mapping[str, float]]] = {"puma_resident_bytes": lambda: {"": resident()}}

    def add(self, name: str, amount: float = 1, **label: str) -> None:
        """Count something; at most one label, such as kind="generate"."""
        assert name in COUNTERS
        with self._lock:
            key = name, labelled(**label)
            self._counts[key] = self._counts.get(key, 0) + amount

    def text(self) -> str:
        """Everything, in the format that Prometheus reads."""
        with self._lock:
            counts = sorted(self._counts.items())
        lines = []
        for name, what in COUNTERS.items():
            lines += [f"# HELP {name} {what}", f"# TYPE {name} counter"]
            lines += [f"{name}{label} {value:.17g}" for (counter, label), value in counts if counter == name]
        for name, what in GAUGES.items():
            lines += [f"# HELP {name} {what}", f"# TYPE {name} gauge"]
            lines += [f"{name}{label} {value:.17g}" for label, value in self.gauges.get(name, dict)().items()]
        return "\n".join(lines) + "\n"


def labelled(**label: str) -> str:
    """A label as it stands behind a name."""
    return "".join(f'{{{key}="{value}"}}' for key, value in label.items())


def resident() -> int:
    """Bytes of memory that this process takes now, files that it has mapped aside."""
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()
    return (int(pages[1]) - int(pages[2])) * PAGE
