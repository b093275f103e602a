"""`puma audit`: ask the parties what means nothing, open it, and compute their part again."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from puma.cli import ui
from puma.cli.options import HUMAN, Count, Flag, Output, Profile
from puma.errors import ProtocolError, UsageError

if TYPE_CHECKING:
    from puma.audit.report import Report

MINUTE = 60.0


def run(
    model: str | None = None,
    /,
    *,
    adapter: str | None = None,
    cluster: Path | None = None,
    key: Annotated[Path | None, Parameter(name="--as")] = None,
    owner: Path | None = None,
    sharing: Path | None = None,
    prompt: Count = 16,
    tokens: Count = 4,
    plan: str = "lean",
    approximation: Profile = "spline",
    every: float | None = None,
    report: Path | None = None,
    insecure: Flag = False,
    open_weights: Flag = False,
    output: Output = HUMAN,
) -> None:
    """Ask three parties a canary, a request that means nothing, and name whoever deviated in it.

    The parties cannot tell it from other sessions of clients that ask with --audited. Afterwards they disclose what
    this one session was computed with, and all that each of them sent is computed again here. It takes the client's
    key, and the owner's with the weights: what is disclosed would show these to others. Of weights that are open it
    takes the client's key and the checkpoint.

    Parameters
    ----------
    model
        The checkpoint that was shared: a folder, a GGUF file or a hub name. Without a cluster, three parties on this
        machine serve it, the embedded model, stories, if left out.
    adapter
        The LoRA adapter that was merged into it.
    cluster
        The cluster file of three distant parties.
    key
        The client's key.
    owner
        The owner's key, with which the model was shared; none of open weights.
    sharing
        The file that `puma share --keep` wrote, with the seeds of the model's masks; none of open weights.
    prompt
        How many tokens to ask with.
    tokens
        How many new ones, of a model that generates.
    plan
        Which functions take fewer rounds and more words, as in the sessions that the canary is to look like.
    approximation
        Which functions are computed, likewise.
    every
        Go on until somebody deviates or it is interrupted: on average a canary in so many minutes, at random times.
    report
        Write the report to this file, for `puma audit verify`. It is as secret as the weights.
    insecure
        Links without TLS, to parties that were started likewise on this machine.
    open_weights
        Without a cluster: let the three parties on this machine know the weights.
    """
    from puma.client import arguments

    if prompt < 1 or tokens < 1 or (every is not None and every <= 0):
        raise UsageError("a canary has at least one token and some time before the next", "see `puma audit run --help`")
    if report is not None and report.exists():
        raise UsageError(f"{report} exists", "a report is never written over another file")
    arguments.distant(plan, audited=True)
    if cluster:
        one = _distant(model, adapter, cluster, key, owner, sharing, (insecure, approximation))
    else:
        one = _here(model, adapter, key, approximation, open_weights)
    count = 0
    while True:
        with ui.progress(output.json) as progress:
            progress("asking a canary", count, count + 1)
            found = one(partial(_asking, prompt=prompt, tokens=tokens, plan=plan))
        count += 1
        if found.findings or every is None:
            _tell(found, count, report, output.json)
            return
        time.sleep(_pause(every))


def verify(
    file: Path, /, *, cluster: Path | None = None, model: str | None = None, adapter: str | None = None,
    sharing: Path | None = None, output: Output = HUMAN,
) -> None:  # fmt: skip
    """Check a report of an audit: who signed what, that the session was a canary, and that the findings follow.

    With the model everything is computed again, so that nobody needs to believe the auditor.

    Parameters
    ----------
    file
        What --report has written.
    cluster
        The cluster file that says whose keys count; cluster.toml unless given.
    model
        The checkpoint that was shared.
    adapter
        The LoRA adapter that was merged into it.
    sharing
        The file that `puma share --keep` wrote; none of open weights.
    """
    from puma import config
    from puma.audit import report as reports
    from puma.audit.shared import again
    from puma.client.evidence.authority import of_cluster
    from puma.reference.plain_model import PlainModel

    found = reports.read(file)
    if (model is None) != (sharing is None) and (found.public is None or sharing is not None):
        raise UsageError("to compute again takes both, --model and --sharing", "add the other, or leave out both")
    known = config.read(cluster or Path("cluster.toml"))
    if found.cluster != known.digest.hex():
        raise ProtocolError("the report is of another cluster", "name its cluster file by --cluster")
    shared = None if model is None else again(PlainModel(model, adapter), sharing, found.public, found.over)
    findings = reports.verify(found, of_cluster(known), shared)
    if output.json:
        told = {"model": found.model, "accused": found.accused, "findings": list(map(str, findings))}
        ui.answer(told | {"again": shared is not None})
        return
    for each in findings:
        ui.say(str(each))
    if not findings:
        ui.say("all three parties did what they should have")
    if shared is None:
        ui.say(
            "The signatures hold. What honest parties would have sent is the auditor's word: --model computes it again."
        )


def _asking(session: Any, prompt: int, tokens: int, plan: str) -> None:
    from puma.client.canaries.asking import ask_like, usual

    session.variants = plan
    ask_like(session, usual(session.served, prompt, tokens))


def _here(model: str | None, adapter: str | None, key: Path | None, approximation: str, open_weights: bool) -> Any:
    """A canary with three parties on this machine, for each one anew."""
    from puma.audit.auditing import Auditor
    from puma.audit.here import shared_by
    from puma.crypto.signing import Signer
    from puma.local.cluster import LocalCluster
    from puma.reference.plain_model import PlainModel

    if key is not None:
        raise UsageError("--as goes with a cluster", "add --cluster cluster.toml")
    clear = PlainModel(model, adapter)

    def one(ask: Any) -> Report:
        weights: Any = "open" if open_weights else "hidden"
        with LocalCluster(clear, approximation=approximation, weights=weights) as parties:
            return Auditor(Signer.fresh(), shared=shared_by(parties)).audit(parties.session, None, ask)

    return one


def _distant(
    model: str | None, adapter: str | None, cluster: Path, key: Path | None, owner: Path | None, sharing: Path | None,
    how: tuple[bool, str],
) -> Any:  # fmt: skip
    """A canary with three parties elsewhere; `how`: without TLS or not, and by which approximation."""
    from puma.audit.remote import canary

    if model is None or key is None or (owner is None) != (sharing is None):
        what = "a cluster's audit needs MODEL, --as and, of hidden weights, --owner and --sharing"
        raise UsageError(what, "client and owner together open a canary")
    return canary(model, adapter, cluster, key, owner, sharing, *how)


def _tell(found: Report, count: int, path: Path | None, as_json: bool) -> None:
    """What came out; ProtocolError if somebody deviated."""
    from puma.audit import report as reports

    if path is not None:
        reports.write(found, path)
    if found.findings:
        hint = f"the report is in {path}" if path else "name a file by --report to show it to others"
        raise ProtocolError("; ".join(map(str, found.findings)), hint)
    frames = sum(len(marks) for trails in found.expected.trails for each in trails.values() for marks in each.values())
    if as_json:
        ui.answer({"model": found.model, "canaries": count, "accused": [], "frames": frames // 16})
        return
    ui.say(f"all three parties did what they should have, in {frames // 16} frames between them")


def _pause(every: float) -> float:
    """Seconds to the next one: up to twice the mean, so that nobody can expect it."""
    return 2 * every * MINUTE * int.from_bytes(os.urandom(4)) / (1 << 32)
