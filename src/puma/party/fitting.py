"""Whether the three parties' parts of a model fit together, which they see among themselves before it is first served.

Shares that do not fit give noise for an answer, and nobody who reads it can know why. So each two parties compare a
digest of what both must hold, and all three open a check vector of public numbers that the owner shared under the same
seeds. This file must not know requests, clients, nor where a part lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from puma import kernels
from puma.errors import ProtocolError, StoreError
from puma.mpc.party import DEALER, FIRST, SECOND
from puma.mpc.share import Share
from puma.net import Link
from puma.store.models import DAMAGED, Manifest, Model
from puma.wire import messages as msg
from puma.wire.parameters import check_values
from puma.wire.twin import Twin

MASKS = {FIRST: 0, SECOND: 1}  # where the dealer holds the seed that it shares with an evaluator
SEED, WORDS = "the same seed", "the same masked words"


def agreed(
    rank: int, links: Mapping[int, Link], find: Callable[[], Model | None], check: Callable[[Model], Share],
    tested: set[bytes], unfit: Callable[[], None] = lambda: None,
) -> Model | None:  # fmt: skip
    """The model that this party finds, if all three have the same sharing of it; None if not.

    Unless all of them have `tested` it since they started, they see first whether their parts fit; `check` gives this
    party's share of the check vector, and `unfit` is called if they do not. StoreError then, or if one of the three
    cannot use its part.
    """
    model, problem = None, None
    try:
        model = find()
    except StoreError as error:
        problem = error
    sharing = model.manifest.sharing if model else b""
    # With a second dealer parts are compared each time: P0 and that one do not know what the other has tested.
    known = sharing in tested and not isinstance(links.get(DEALER), Twin)
    mine = msg.Holds(sharing, known, problem.message if problem else "")
    theirs = _swapped(links, dict.fromkeys(links, mine), msg.Holds)
    if problem is not None:
        raise problem
    for other in theirs.values():
        if other.problem:
            raise StoreError(other.problem, DAMAGED)
    if model is None or any(other.sharing != sharing for other in theirs.values()):
        return None
    if model.manifest.public:  # what the parties call it is a digest of what each has compared with its files
        return model
    if not all(each.tested for each in (mine, *theirs.values())):
        try:
            _test(rank, links, model.manifest, check(model))
        except StoreError:
            unfit()
            raise
        tested.add(sharing)
    return model


def common(manifest: Manifest, mine: int, theirs: int) -> bytes:
    """A digest of all that these two parties both hold of a model.

    Safe: it goes to the one party that holds the same, and what it is of has 256 bits that nobody can guess.
    """
    if DEALER in (mine, theirs):
        place = MASKS[max(mine, theirs)] if mine == DEALER else 0
        what, held = f"seed {max(mine, theirs)}", manifest.seeds[place]
    else:
        what, held = "masked words", b"".join(manifest.digests)
    return hashlib.sha256(f"puma/1|fits|{what}|".encode() + manifest.sharing + held).digest()


def _test(rank: int, links: Mapping[int, Link], manifest: Manifest, check: Share) -> None:
    """Safe: the check vector is public and its masks serve for nothing else, so that all may see all of it."""
    a, b = (bytes(kernels.to_wire(kernels.pack(each, check.bits))) for each in check.components)
    own = (a, b)
    parts = {other: msg.Fits(common(manifest, rank, other), own) for other in links}
    theirs = _swapped(links, parts, msg.Fits)
    for other, part in theirs.items():
        if part.sha256 != parts[other].sha256:
            raise _unfit(manifest, rank, other, SEED if DEALER in (rank, other) else WORDS)
    held = {rank: own} | {other: part.check for other, part in theirs.items()}
    for one, i, other, k in ((0, 0, 1, 1), (0, 1, 2, 1), (1, 0, 2, 0)):
        if held[one][i] != held[other][k]:
            raise _unfit(manifest, one, other, WORDS if DEALER not in (one, other) else SEED)
    l1, l2, m = (kernels.unpack(_row(each), check.bits, tuple(check.shape)) for each in (*held[DEALER], held[FIRST][0]))
    if not torch.equal(kernels.signed(m - l1 - l2, check.bits), check_values().long()):
        what = f"the masked words of model {manifest.name} at P1 and P2 do not belong to its seeds"
        raise StoreError(what, DAMAGED)


def _row(packed: bytes) -> Tensor:
    return kernels.from_wire(bytearray(packed))


def _unfit(manifest: Manifest, one: int, other: int, what: str) -> StoreError:
    low, high = sorted((one, other))
    return StoreError(f"P{low} and P{high} do not hold {what} of model {manifest.name}", DAMAGED)


def _swapped(links: Mapping[int, Link], mine: Mapping[int, msg.Request], kind: type[Any]) -> dict[int, Any]:
    """What the others say, each told first what is for it."""
    for rank, link in links.items():
        link.send_control(msg.encode(mine[rank]))
    theirs = {rank: msg.decode_request(link.recv_control()) for rank, link in links.items()}
    for rank, word in theirs.items():
        if not isinstance(word, kind):
            raise ProtocolError(f"P{rank} does not say what it holds", "run the same version of Puma everywhere")
    return theirs
