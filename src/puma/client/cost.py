"""What a request cost all parties together, joined from their reports. It knows numbers, never words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from puma.client.drafts.draft import Counted
from puma.store.prepared_requests import PreparedRequest
from puma.wire import messages as msg

PARTIES = 3


@dataclass(frozen=True)
class Cost:
    """What one request cost: all parties, a second dealer last, and the client's upload of its shares."""

    seconds: float
    prefill: float
    rounds: int
    online: int
    offline: int
    per_party: list[int]
    client: int
    cpu_by_party: list[float]
    peak_rss_mib: list[float]
    breakdown: list[dict[str, Any]] = field(repr=False)
    prepared: PreparedRequest | None = field(default=None, repr=False)  # what was done beforehand, if anything
    drafts: Counted | None = field(default=None, repr=False)  # what became of them, where there were some

    @property
    def total(self) -> int:
        """Bytes sent by the parties and by the client."""
        return self.online + self.offline

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds of the parties together."""
        return sum(self.cpu_by_party)

    @property
    def second(self) -> int | None:
        """Bytes sent by a second dealer, which are among the others; None where there is none."""
        return sum(self.per_party[PARTIES:]) if len(self.per_party) > PARTIES else None

    def bytes(self) -> dict[str, Any]:
        """All bytes of the request: online, offline and the client's upload; those of a second dealer among them."""
        found = {
            "total": self.total, "online": self.online, "offline": self.offline, "per_party": self.per_party,
            "client": self.client,
        }  # fmt: skip
        return found if self.second is None else found | {"second_dealer": self.second}


def added(costs: Sequence[Cost]) -> Cost:
    """What several requests, one after the other, cost together; at least one."""
    parts: dict[str, dict[str, Any]] = {}
    for part in (part for cost in costs for part in cost.breakdown):
        before = parts.get(part["name"], {})
        parts[part["name"]] = {key: x if key == "name" else before.get(key, 0) + x for key, x in part.items()}
    return Cost(
        seconds=sum(cost.seconds for cost in costs),
        prefill=sum(cost.prefill for cost in costs),
        rounds=sum(cost.rounds for cost in costs),
        online=sum(cost.online for cost in costs),
        offline=sum(cost.offline for cost in costs),
        per_party=[sum(each) for each in zip(*(cost.per_party for cost in costs), strict=True)],
        client=sum(cost.client for cost in costs),
        cpu_by_party=[sum(each) for each in zip(*(cost.cpu_by_party for cost in costs), strict=True)],
        peak_rss_mib=[max(each) for each in zip(*(cost.peak_rss_mib for cost in costs), strict=True)],
        breakdown=[*parts.values()],
        prepared=costs[-1].prepared,
    )


def cost_of(reports: Sequence[msg.Report], client: int, prepared: PreparedRequest | None = None) -> Cost:
    """Join the parties' reports, a second dealer's last; the client's upload counts as online."""
    names = list(dict.fromkeys(s.name for r in reports for s in r.spent))
    parts = {n: [next((s for s in r.spent if s.name == n), None) for r in reports] for n in names}
    breakdown = [
        {
            "name": name,
            "seconds": max(s.seconds for s in spent if s),
            "rounds": max(s.rounds for s in spent if s),
            "bytes": sum(s.online + s.offline for s in spent if s),
        }
        for name, spent in parts.items()
    ]
    return Cost(
        seconds=max(r.seconds for r in reports),
        prefill=max(r.prefill for r in reports),
        rounds=max(sum(s.rounds for s in r.spent) for r in reports),
        online=sum(s.online for r in reports for s in r.spent) + client,
        offline=sum(s.offline for r in reports for s in r.spent),
        per_party=[sum(s.online + s.offline for s in r.spent) for r in reports],
        client=client,
        cpu_by_party=[r.cpu_seconds for r in reports],
        peak_rss_mib=[r.peak_rss_mib for r in reports],
        breakdown=[b for b in breakdown if b["bytes"] or b["seconds"] > 1e-3],
        prepared=prepared,
    )
