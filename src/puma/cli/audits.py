"""The options by which a gateway lets its parties be audited beside what it is asked.

Its sessions then take one request each and begin as canaries do. This file must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from puma.cli import ui
from puma.cli.options import Count
from puma.errors import PumaError, UsageError


@Parameter(name="*")
@dataclass(frozen=True)
class Audits:
    """How parties in a cluster are audited beside requests."""

    every: Annotated[Count, Parameter(name="--audit-every")] = 0
    """A canary for so many requests on average, by chance, each like one of the latest; 0 for none. Each request then
    has a session of its own, and none is computed together with others."""

    model: Annotated[str | None, Parameter(name="--audit-model")] = None
    """The checkpoint that was shared, for canaries."""

    owner: Annotated[Path | None, Parameter(name="--audit-owner")] = None
    """The key with which it was shared, for canaries; none of open weights."""

    sharing: Annotated[Path | None, Parameter(name="--audit-sharing")] = None
    """The file that `puma share --keep` wrote then; none of open weights."""

    def check(self, cluster: Path | None, draft: object = None) -> None:
        """UsageError for options that do not belong together."""
        given = (self.model, self.owner, self.sharing)
        if not self.every and any(given):
            raise UsageError("--audit-model, --audit-owner and --audit-sharing go with --audit-every", "add it")
        alone = (self.owner is None) != (self.sharing is None)
        if self.every and (cluster is None or self.model is None or alone):
            what = (
                "--audit-every needs --cluster, --audit-model and, of hidden weights, both --audit-owner and -sharing"
            )
            raise UsageError(what, "client and owner together open a canary: see docs/audits.md")
        if self.every and draft:
            what = "--audit-every and --draft: drafts of a real text are right more often than a canary's could be"
            raise UsageError(what, "leave out one of both")

    def of(self, start: Callable[[], Any], cluster: Path, key: Path) -> Callable[[], Any]:
        """What makes clusters whose requests are audited, from what makes any."""
        from puma.audit.remote import canary
        from puma.audit.scheduled import Audited, Schedule

        assert self.model is not None
        one = canary(self.model, None, cluster, key, self.owner, self.sharing)
        schedule = Schedule(one, self.every, _told)

        def audited() -> Any:
            schedule.check()
            return Audited(start(), schedule)

        return audited


NEVER = Audits()


def _told(found: Any) -> None:
    """What became of a canary."""
    if isinstance(found, PumaError):
        ui.note(f"a canary was not answered: {found}")
    elif not found.findings:
        ui.note("a canary: all three parties did what they should have")
    for each in getattr(found, "findings", []):
        ui.note(f"AUDIT: {each}; nothing more is asked")
