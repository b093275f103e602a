"""One session's commitment at one party: taken before its first request, and opened once, after its last.

What a party discloses are the secrets from which all masks of the session were drawn, and the marks of its frames. They
belong to a prompt that means nothing, if the client said so before anything was computed; to anybody who holds an
evaluator's frames they give activations, and so weights, which is why the model's owner must have agreed, unless
everybody may know these. Nothing is computed under these secrets afterwards, nor was anything prepared for later. This
file must not know requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from puma.crypto.prg import PairKey
from puma.crypto.signing import Signer, fingerprint_of, signed
from puma.errors import AdmissionError, ProtocolError
from puma.net import Link
from puma.wire import canaries
from puma.wire import messages as msg
from puma.wire.canaries import Commit, Committed, Disclosed, Disclosure, Pledge, Reveal, Sealed

COMPUTING = (msg.Generate, msg.Encode, msg.SelfTest, msg.Prepare, msg.Take)
HINT = "a session that may be audited says so before its first request"


class Commitment:
    """`keys` and `links` are the session's own, by the peer's rank; `owned`: whoever asks owns all models here."""

    def __init__(
        self, rank: int, session: bytes, keys: Mapping[int, PairKey], links: Mapping[int, Link], signer: Signer | None,
        owned: bool = False,
    ) -> None:  # fmt: skip
        self._rank, self._session, self._keys, self._links = rank, session, dict(keys), dict(links)
        self._signer, self._owned = signer, owned
        self._sha256 = b""
        self._begun = self._over = False
        self._owners: set[str] = set()  # of the models that were served

    def __repr__(self) -> str:
        return f"Commitment(rank={self._rank})"

    @property
    def made(self) -> bool:
        """Whether there is one: the session is computed over its own links, and may be opened."""
        return bool(self._sha256)

    def served(self, owner: str) -> None:
        """A model of secret weights that came with this key is served from now on."""
        self._owners.add(owner)

    def answer(self, word: msg.Request, agree: Callable[[msg.Request], None]) -> Committed | Disclosed | None:
        """What a word about the commitment is answered with, once all parties `agree` that it was said; None for any
        other, which is refused where it may not come."""
        if isinstance(word, Commit):
            agree(word)
            return self._commit(word)
        if isinstance(word, Reveal):
            agree(word)
            return self._reveal(word)
        self._begin(isinstance(word, COMPUTING), isinstance(word, msg.Prepare | msg.Take))
        return None

    def _begin(self, computes: bool, ahead: bool) -> None:
        """A request comes; `ahead`: it prepares or uses what another session may meet."""
        if self._over:
            what = f"P{self._rank} has disclosed what this session was computed with"
            raise AdmissionError(what, "open a new session")
        if self.made and ahead:
            what = "nothing is prepared in a session that may be audited"
            raise AdmissionError(what, "its secrets may be disclosed: prepare in another session")
        self._begun = self._begun or computes

    def _commit(self, word: Commit) -> Committed:
        """ProtocolError for a second one or one that comes late, AdmissionError where a session cannot be audited."""
        if self.made or self._begun:
            raise ProtocolError("a commitment came after a request, or a second time", HINT)
        if len(self._keys) != 2 or self._signer is None:
            what = f"P{self._rank} cannot be audited in this session: it has no links of its own between the parties"
            raise AdmissionError(what, "open a session of its own, with parties that sign")
        self._sha256 = word.sha256
        for link in self._links.values():  # of what may be opened nothing is believed: a finding names who sent it
            link.doubt()
        pairs = [canaries.pair_digest(self._keys[peer].secret) for peer in sorted(self._keys)]
        return Committed(self._sign(Pledge(self._rank, self._session, self._sha256, pairs)))

    def _reveal(self, word: Reveal) -> Disclosed:
        """AdmissionError unless the session was committed to as a canary before it began, and the owner of every model
        that it was computed with agrees."""
        if not self.made or canaries.commitment(word.nonce, canary=True) != self._sha256:
            what = f"P{self._rank} discloses nothing: this session was not committed to as a canary"
            raise AdmissionError(what, HINT)
        self._check_consent(word)
        self._over = True
        secrets = [self._keys[peer].secret for peer in sorted(self._keys)]
        trails = {f"P{peer}": link.trails for peer, link in self._links.items()}
        return Disclosed(self._sign(Disclosure(self._rank, self._session, self._sha256, secrets, trails)))

    def _check_consent(self, word: Reveal) -> None:
        places = [i for i, pair in enumerate(canaries.PAIRS) if self._rank in pair]
        mine = [canaries.pair_digest(self._keys[peer].secret) for peer in sorted(self._keys)]
        if [word.pairs[i] for i in places] != mine:
            raise AdmissionError(f"P{self._rank} discloses nothing: these are not the secrets of this session", HINT)
        if self._owned or not self._owners:
            return
        agreed = signed(word.key, word.consent, canaries.consented(self._sha256, word.pairs))
        if not agreed or self._owners != {fingerprint_of(word.key)}:
            what = f"P{self._rank} discloses nothing: the model's owner has not agreed"
            raise AdmissionError(what, "whoever shared the model signs with the same key")

    def _sign(self, what: Pledge | Disclosure) -> Sealed:
        assert self._signer is not None
        payload = canaries.encode(what)
        signature = self._signer.sign(canaries.to_be_signed(what, payload))
        return Sealed(payload, signature, self._signer.key, self._signer.certificates)
