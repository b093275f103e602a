"""The options that lead a command to a cluster of distant parties instead of three processes here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from puma.cli.ui import Flag
from puma.errors import UsageError

if TYPE_CHECKING:
    from puma.serving.remote import ClusterSession, RemoteCluster

Key = Annotated[Path, Parameter(name="--as")]
ClusterFile = Path("cluster.toml")


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Who answers."""

    cluster: Path | None = None
    """The cluster file of three distant parties; without it, three parties run on this machine."""

    key: Annotated[Path | None, Parameter(name="--as")] = None
    """The client's key, as `puma keys new` makes it."""

    model: Annotated[str | None, Parameter(name="--model")] = None
    """The name of a model that the cluster serves; may be left out if there is only one."""

    insecure: Flag = False
    """Links without TLS, to parties that were started likewise on this machine."""

    def connect(self) -> RemoteCluster:
        """Open a session with these parties."""
        from puma.serving.remote import connect

        assert self.cluster is not None
        if self.key is None:
            raise UsageError("parties answer to a key only", "name yours with --as, such as --as alice.key")
        return connect(self.cluster, self.model or "", self.key, plain=self.insecure)

    def check(self, **local: object) -> None:
        """UsageError for options of one way beside options of the other."""
        if self.cluster is None:
            if self.key or self.model or self.insecure:
                raise UsageError("--as, --model and --insecure go with a cluster", "add --cluster cluster.toml")
            return
        wrong = [f"--{name}" for name, value in local.items() if value]
        if wrong:
            raise UsageError(f"{wrong[0]} is for parties on this machine", "leave out --cluster, or that option")


HERE = Where()


def owner(cluster: Path, key: Path, insecure: bool) -> ClusterSession:
    """A session as the owner of models."""
    from puma.serving.remote import open_session

    return open_session(cluster, key, "owner", insecure)
