"""Three parties in three threads of one process, over memory links: what most tests stand on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from puma.crypto.prg import PairKey
from puma.mpc.arithmetic import masked_input
from puma.mpc.party import Party
from puma.mpc.share import Share
from puma.net.memory import pair

SECRETS = {(0, 1): b"\x01" * 32, (0, 2): b"\x02" * 32, (1, 2): b"\x03" * 32}


class Recorder:
    """A link that remembers every payload it received."""

    def __init__(self, link: Any) -> None:
        self.link, self.received = link, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.link, name)

    def recv(self, size: int) -> Any:
        data = self.link.recv(size)
        self.received.append(bytes(data))
        return data


def trio(secrets: dict[tuple[int, int], bytes] | None = None, record: bool = False) -> list[Party]:
    """Fresh parties with test keys, linked in memory."""
    secrets = SECRETS | (secrets or {})
    links: list[dict[int, Any]] = [{}, {}, {}]
    for a, b in secrets:
        links[a][b], links[b][a] = pair(f"P{a}", f"P{b}")
    if record:
        links = [{peer: Recorder(link) for peer, link in mine.items()} for mine in links]
    keys = [{b if a == r else a: PairKey(s) for (a, b), s in secrets.items() if r in (a, b)} for r in range(3)]
    return [Party(r, links[r], keys[r]) for r in range(3)]


def parties(function: Callable[[Party], Any], trio_: list[Party] | None = None, timeout: float = 60) -> list[Any]:
    """function(party) in three threads; the three results, or the first error raised."""
    members = trio_ or trio()
    results: list[Any] = [None] * 3
    errors: list[BaseException] = []

    def work(party: Party) -> None:
        try:
            results[party.rank] = function(party)
        except BaseException as error:
            errors.append(error)
            for link in party.links.values():
                link.fail(str(error))

    threads = [threading.Thread(target=work, args=(p,), daemon=True) for p in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    assert errors or not any(t.is_alive() for t in threads), "a party hangs"
    if trio_ is None:
        for party in members:
            for link in party.links.values():
                link.close()
    if errors:
        raise errors[0]
    return results


_inputs = iter(range(1, 1 << 60))


def given(party: Party, value: Tensor, bits: int = 64, frac: int = 0, name: str = "x") -> Share:
    """A share of `value` (integers if frac is 0): every party calls it alike; masks are drawn, m is computed openly."""
    words = torch.round(value.double() * 2.0**frac).long() if frac else value.long()
    if party.dry:
        return masked_input(party, torch.empty(words.shape, dtype=torch.int64, device="meta"), tuple(words.shape), bits, frac, f"test {name}")
    masks = [PairKey(SECRETS[0, r]).stream(f"test {name}").words(tuple(words.shape)) for r in (1, 2)]
    m = words + masks[0] + masks[1]
    own = {0: (masks[0], masks[1]), 1: (m, masks[0]), 2: (m, masks[1])}[party.rank]
    return Share(party, *own, bits, frac)


def joined(shares: list[Share]) -> Tensor:
    """The signed words of a result, from the three parties' shares, checking that the copies agree."""
    (l1, l2), (m1, one), (m2, two) = (s.components for s in shares)
    bits = shares[0].bits
    assert all(s.bits == bits and s.frac == shares[0].frac for s in shares)
    low = 64 - bits
    for x, y in ((l1, one), (l2, two), (m1, m2)):
        assert torch.equal(x << low, y << low)
    return ((m1 - l1 - l2) << low) >> low


def value(shares: list[Share]) -> Tensor:
    """The decoded result of three parties' shares."""
    return joined(shares).double() / 2.0 ** shares[0].frac
