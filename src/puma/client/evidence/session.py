"""The receipts of one session at its client: each is checked as it comes, and the latest ones are at hand.

It knows what the client has asked and seen; it must not know how messages travel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from puma.client.evidence.authority import Authority
from puma.client.evidence.checks import HINT, Seen, check, check_seen
from puma.client.evidence.receipt import Receipt
from puma.errors import ReceiptError
from puma.net.chain import Heads
from puma.wire import messages as msg
from puma.wire import receipts
from puma.wire.receipts import Commitment, Signed

KEPT = 4096


class Receipts:
    """`session` and `cluster` are what the client named when it began; `authority` says whose keys count."""

    def __init__(self, session: bytes, cluster: bytes, authority: Authority) -> None:
        self._session, self.cluster, self.authority = session, cluster, authority
        self._number = 0
        self._asked = bytes(32)
        self._model: tuple[str, bytes, bytes, str] | None = None
        self._commitment: Commitment | None = None
        self.kept: deque[Receipt] = deque(maxlen=KEPT)  # of this session, the latest ones

    def ask(self, word: msg.Request) -> None:
        """This is about to be asked; of a request in several words the first."""
        heard = msg.decode_request(msg.encode(word))  # as the parties read it: a whole number may become a float there
        self._asked = receipts.request_digest(msg.public(heard))

    def opened(self, reply: msg.Opened, name: str, approximation: str, commitment: Commitment | None) -> None:
        """This model is served from now on."""
        card = receipts.card_digest(reply.config, reply.card)
        self._model, self._commitment = (name, card, reply.sharing, approximation), commitment

    def take(self, signed: Sequence[Signed | None], links: Mapping[int, Heads]) -> Receipt:
        """What came with the reports of what was asked last; ReceiptError if it does not hold, or there is none."""
        self._number += 1
        given = [each for each in signed if each is not None]
        if len(given) != len(signed):
            silent = " and ".join(f"P{rank}" for rank, each in enumerate(signed) if each is None)
            raise ReceiptError(f"{silent} signed no statement", HINT)
        receipt = Receipt(tuple(given), self.authority.local)
        check(receipt, self.authority)
        seen = Seen(self.cluster, self._session, self._number, self._asked, self._model, self._commitment, dict(links))
        check_seen(receipt, seen)
        self.kept.append(receipt)
        return receipt
