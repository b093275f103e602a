"""The options that lead a command to a cluster of distant parties instead of three processes here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter

from puma import pool
from puma.cli import ui
from puma.cli.options import FITTED, Count, Fitting, Flag
from puma.cli.ui import Progress
from puma.config import MOST_DEALERS
from puma.errors import UsageError

if TYPE_CHECKING:
    from puma.client.connect import ClusterSession, RemoteCluster
    from puma.client.model_info import ModelInfo

T = TypeVar("T")


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Who answers."""

    adapter: str | None = None
    """A LoRA adapter, a folder as peft writes it or a name on the hub, to be merged into a model on this machine."""

    cluster: Path | None = None
    """The cluster file of three distant parties; without it, three parties run on this machine."""

    key: Annotated[Path | None, Parameter(name="--as")] = None
    """The client's key, as `puma keys new` makes it."""

    model: Annotated[str | None, Parameter(name="--model")] = None
    """The name of a model that the cluster serves; may be left out if there is only one."""

    insecure: Flag = False
    """Links without TLS, to parties that were started likewise on this machine."""

    tokenizer: Path | None = None
    """Your own tokenizer.json, or a folder that holds one and perhaps a chat template, instead of the owner's."""

    accept_changes: Flag = False
    """Take the model although its config, tokenizer or chat template is another than you last saw."""

    open_weights: Flag = False
    """The weights are no secret: parties on this machine read the model's files where they lie, and only prompts and
    answers are hidden. Quicker, and nothing is shared; a cluster's card says whether a model is."""

    out_of_range: Literal["refuse", "warn"] = "refuse"
    """warn: take an answer although a number left its range while it was computed, so that it may be wrong."""

    plan: str | None = None
    """Which functions take fewer rounds and more words: lean none, quick what sends little more, auto as the
    network between the parties has it, or their names with commas between. Unless given auto with a cluster, and else
    lean, also with --audited."""

    audited: Flag = False
    """Ask as a canary would, so that parties cannot tell this session from one (`puma audit`)."""

    receipt: Path | None = None
    """Keep what the three parties sign of the requests in this file, for `puma receipt`."""

    threads: Count | None = None
    """Threads of each of the parties on this machine; its cores divided by all of them unless given."""

    dealers: Count = 1
    """2: a second dealer on this machine computes what P0 does, and nothing that only one of them says is used."""

    def connect(
        self, approximation: str = "spline", store: Path | None = None, progress: Progress | None = None
    ) -> RemoteCluster:
        """Open a session with these parties; prepared requests for what they have prepared lie below `store`."""
        from puma.client.connect import connect
        from puma.store import folders

        assert self.cluster is not None
        if self.key is None:
            hint = "such as --as alice.key; `puma cluster show` lists the clients that the cluster file knows"
            raise UsageError("--cluster needs --as KEY, a client's key", hint)
        prepared_requests = folders.private_folder(store) / "client" if store else None
        how = {"plain": self.insecure, "approximation": approximation, "prepared_requests": prepared_requests}
        how |= {
            "progress": progress,
            "tokenizer": self.tokenizer,
            "accept_changes": self.accept_changes,
            "audited": self.audited,
        }
        how["variants"] = self.plan
        cluster = connect(self.cluster, self.model or "", self.key, **how)  # type: ignore[arg-type]
        cluster.out_of_range = self.out_of_range
        if cluster.seen != "same":
            what = "seen for the first time" if cluster.seen == "new" else "another than before, as you accepted"
            ui.note(f"The tokenizer and chat template of {cluster.model.name} are {what}: they count from now on.")
        return cluster

    @property
    def weights(self) -> Literal["hidden", "open"]:
        """What parties on this machine may know of the weights."""
        return "open" if self.open_weights else "hidden"

    def check(self, **local: object) -> None:
        """UsageError for options of one way beside options of the other."""
        if self.threads is not None and not 1 <= self.threads <= pool.MOST:
            raise UsageError(f"--threads {self.threads} compute nothing", f"give 1 to {pool.MOST}, or leave it out")
        if not 1 <= self.dealers <= MOST_DEALERS:
            raise UsageError(f"there are no parties with {self.dealers} dealers", "give 1 or 2, or leave it out")
        if self.receipt is not None and not self.receipt.absolute().parent.is_dir():
            raise UsageError(f"there is no folder for the receipt {self.receipt}", "make it first")
        if self.cluster is None:
            if self.key or self.model or self.insecure:
                raise UsageError("--as, --model and --insecure go with a cluster", "add --cluster cluster.toml")
            if self.tokenizer or self.accept_changes or self.audited:
                what = "--tokenizer, --accept-changes and --audited go with a cluster"
                raise UsageError(what, "add --cluster cluster.toml")
            return
        self.check_adapter()
        if self.open_weights:
            what = "--open-weights is for parties on this machine: whether a cluster's model is open, its card says"
            raise UsageError(what, "leave it out; `puma models show` tells")
        wrong = [f"--{name}" for name, value in local.items() if value]
        wrong += ["--threads"] if self.threads is not None else []
        wrong += ["--dealers"] if self.dealers != 1 else []
        if wrong:
            raise UsageError(f"{wrong[0]} is for parties on this machine", "leave out --cluster, or that option")

    def check_adapter(self) -> None:
        """UsageError for an adapter of a model that is the cluster's."""
        if self.adapter is not None and self.cluster is not None:
            raise UsageError("--adapter is for a model on this machine", "its owner shares the model with the adapter")

    def keep(self, cluster: Any) -> None:
        """Write down what the parties have signed so far, if that was asked for."""
        if self.receipt is None:
            return
        from puma.client.evidence import verify as receipts

        kept = cluster.session.receipts.kept
        receipts.write(self.receipt, [each for each in kept if each.statements[0].model is not None])

    def say_local(self) -> None:
        """That parties on one machine are for trying."""
        if self.cluster is None:
            ui.say(ui.LOCAL)


HERE = Where()


def opened(
    where: Where, source: str | None, ask: Callable[[Any], T], progress: Progress, store: Path | None,
    approximation: str = "spline", reveal_logits: bool = False, fitting: Fitting = FITTED,
) -> tuple[Any, T]:  # fmt: skip
    """The parties, ready to be asked, and what `ask` makes of the model's tokenizer before anything is sent."""
    where.check(calibrate=fitting.calibrate, margin=fitting.margin != FITTED.margin, coarse=fitting.coarse)
    if where.cluster is not None:
        where.check_adapter()
        if source is not None:
            raise UsageError(f"the cluster has its models already, and {source} is one too many", "name it by --model")
        cluster = where.connect(approximation, store, progress)
        try:
            return cluster, ask(cluster.model)
        except BaseException:
            cluster.close()
            raise
    from puma.local.cluster import LocalCluster
    from puma.reference.plain_model import PlainModel

    clear = PlainModel(source, where.adapter)
    asked = ask(clear)
    how = {"store": store, "reveal_logits": reveal_logits, "approximation": approximation, "weights": where.weights}
    how |= {"threads": where.threads, "variants": where.plan or "lean", "dealers": where.dealers}
    local = LocalCluster(clear, progress, plan=fitting.settings(approximation), **how)  # type: ignore[arg-type]
    local.out_of_range = where.out_of_range
    return local, asked


def folder_of(store: Path | None, prepared: bool) -> Path | None:
    """The folder to look in for what has been prepared: that of `--store`, or with `--prepared` the usual one."""
    from puma.local.inventory import default_folder

    return store or (default_folder() if prepared else None)


def sentences(clear: ModelInfo, texts: Sequence[str | tuple[str, str]], asked: Mapping[str, Any]) -> list[Any]:
    """Texts, or pairs of them, as the model reads them."""
    from puma.client.sentences import Asked

    how = Asked.of(**asked)
    how.check(clear.width)
    return [clear.reading(*([each] if isinstance(each, str) else each), asked=how) for each in texts]


def owner(cluster: Path, key: Path, insecure: bool, progress: Progress | None = None) -> ClusterSession:
    """A session as the owner of models."""
    from puma.client.connect import open_session

    return open_session(cluster, key, "owner", insecure, progress)
