"""The report of an audit: what was said and disclosed of a canary, what honest parties would have sent, who deviated.

It is signed by the auditor, and holds what each party signed; who has the model as it was shared can compute everything
again. It holds the secrets of that one session: with an evaluator's frames they give activations, and so weights, so
it is for people who may know the model. This file must not know how a session is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from puma.audit.replay import Expected, replayed
from puma.audit.shared import Shared
from puma.audit.verdict import Finding, Heads, judged, secrets_of
from puma.client.canaries.opening import paired
from puma.client.canaries.recorded import Script
from puma.client.evidence.authority import Authority
from puma.client.resume import Plan
from puma.crypto.signing import Signer, signed
from puma.errors import ProtocolError, StoreError, UsageError
from puma.store import folders
from puma.wire import canaries, receipts
from puma.wire import messages as msg
from puma.wire.canaries import Disclosure, Pledge, Sealed
from puma.wire.receipts import Signed, Statement

FORMAT = 1
HINT = "whoever made the report has changed it, or it belongs to another cluster"


class Report(msgspec.Struct, forbid_unknown_fields=True):
    """Everything about one canary. `opened` is the word that opened the model, None where none was; `public` is that
    model, if its weights are open, and `over` its base, if it is an adapter of such; `signature` is over all the rest,
    by the auditor's `key`."""

    cluster: str
    model: str
    made: float
    nonce: bytes
    pledges: list[Sealed]
    disclosures: list[Sealed]
    receipts: list[Signed]
    opened: msg.Open | None
    scripts: list[Script]
    expected: Expected
    findings: list[Finding]
    key: bytes
    signature: bytes = b""
    format: int = FORMAT
    public: Plan | None = None
    over: Plan | None = None

    def __repr__(self) -> str:
        return f"Report({len(self.findings)} findings)"

    @property
    def accused(self) -> list[str]:
        """Parties that deviated, or of which one did."""
        return sorted({f"P{rank}" for finding in self.findings for rank in finding.parties})


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Report)


def sign(report: Report, auditor: Signer) -> Report:
    """The report with the auditor's signature."""
    report.key = auditor.key
    report.signature = auditor.sign(_to_be_signed(report))
    return report


def write(report: Report, path: Path) -> None:
    """A new file, for its owner alone; StoreError if there is one."""
    with folders.explained(f"the report {path}"):
        folders.write_new(path, _encoder.encode(report) + b"\n")


def read(path: Path) -> Report:
    """StoreError if the file is no report."""
    with folders.explained(f"the report {path}"):
        content = path.read_bytes()
    try:
        found = _decoder.decode(content)
    except (ValueError, msgspec.MsgspecError):
        raise StoreError(f"{path} is no report of an audit", "`puma audit --report FILE` writes one") from None
    if found.format != FORMAT:
        raise StoreError(f"{path} has format {found.format}, not {FORMAT}", "read it with the version that wrote it")
    return found


def verify(report: Report, authority: Authority, shared: Shared | None = None, again: bool = False) -> list[Finding]:
    """What the report shows, once everything in it has been checked; ProtocolError for what does not hold.

    The parties' signatures by the keys that the cluster knows; that they were told the commitment before the session
    began, and that it opens as a canary's; that secrets are those that were pledged; that the findings follow from what
    the parties signed and what the auditor says that honest ones would have sent; with the model as it was `shared`, or
    `again` where none was asked, that too, by computing it once more.
    """
    if not signed(report.key, report.signature, _to_be_signed(report)):
        raise ProtocolError("the auditor's signature does not hold", HINT)
    pledges, disclosures = said(report.pledges, report.disclosures, authority, report.made)
    sha256 = canaries.commitment(report.nonce, canary=True)
    if any(each.commitment != sha256 for each in (*pledges, *disclosures)):
        raise ProtocolError("the session was not committed to as a canary before it began", HINT)
    if len({each.session for each in (*pledges, *disclosures)}) != 1:
        raise ProtocolError("what the parties signed is of several sessions", HINT)
    paired(pledges)
    expected = report.expected
    if shared is not None or again:
        expected = replayed(shared, report.opened, report.scripts, secrets_of(pledges, disclosures))
        if expected != report.expected:
            raise ProtocolError("honest parties would have sent something else than the report says", HINT)
    statements = stated(report.receipts, authority)
    check_model(expected, statements, report.public)
    found = judged(expected, pledges, disclosures, report.scripts, [heads(each) for each in statements])
    if found != report.findings:
        raise ProtocolError("the findings do not follow from what the parties signed", HINT)
    return found


def said(
    pledges: Sequence[Sealed], disclosures: Sequence[Sealed], authority: Authority, when: float
) -> tuple[list[Pledge], list[Disclosure]]:
    """What the three parties signed, in the order of their ranks; ProtocolError for whoever did not."""
    found: list[Any] = []
    for decode, each in ((canaries.pledge_of, pledges), (canaries.disclosure_of, disclosures)):
        if len(each) != 3:
            raise ProtocolError(f"{len(each)} parties have signed, not 3", HINT)
        words = [decode(sealed.payload) for sealed in each]
        for rank, (sealed, word) in enumerate(zip(each, words, strict=True)):
            problem = _objection(sealed, word, rank, authority, when)
            if problem:
                raise ProtocolError(f"what P{rank} is said to have signed does not hold: {problem}", HINT)
        found.append(words)
    return found[0], found[1]


def stated(signed_: Sequence[Signed], authority: Authority) -> list[Statement]:
    """The last receipt of each party; ProtocolError for what is not signed."""
    found: list[Statement] = []
    for rank, each in enumerate(signed_):
        statement = receipts.decode(each.statement)
        problem = authority.objection(rank, each, statement.ended)
        if problem or not signed(each.key, each.signature, receipts.to_be_signed(each.statement)):
            raise ProtocolError(f"the receipt of P{rank} does not hold: {problem or 'it is not signed'}", HINT)
        found.append(statement)
    return found


def heads(statement: Statement) -> Heads:
    """Of the session's own links to the other parties, as a receipt has them."""
    own = [ends for ends in statement.links if ends.place == "own" and ends.peer != receipts.CLIENT]
    return {ends.peer: {"sent": ends.sent.digest, "received": ends.received.digest} for ends in own}


def check_model(expected: Expected, statements: Sequence[Statement], public: Plan | None = None) -> None:
    """UsageError if the parties served another model than was computed again: all of them would seem to deviate. Of one
    whose weights are `public` they name the card, in which the digest of these is."""
    served = [each.model for each in statements if each.model is not None]
    card = None if public is None else receipts.card_digest(public.config, public.card)
    other = public is not None and any((each.card, each.sharing) != (card, public.sharing) for each in served)
    if other or (served and [each.commitment for each in served] != expected.commitments):
        what = "these weights and seeds are not of the model that the parties serve"
        hint = "name the checkpoint that was shared and what `puma share --keep` wrote then; see docs/audits.md"
        raise UsageError(what, hint)


def _objection(sealed: Sealed, word: Pledge | Disclosure, rank: int, authority: Authority, when: float) -> str:
    if word.rank != rank:
        return f"it is of P{word.rank}"
    if not signed(sealed.key, sealed.signature, canaries.to_be_signed(word, sealed.payload)):
        return "the signature is another's"
    return authority.objection(rank, Signed(b"", sealed.signature, sealed.key, sealed.certificates), when)


def _to_be_signed(report: Report) -> bytes:
    bare = msgspec.structs.replace(report, signature=b"")
    return b"puma/1|audit|" + hashlib.sha256(_encoder.encode(bare)).digest()
