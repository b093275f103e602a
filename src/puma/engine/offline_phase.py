"""A party's part of a request that is computed in two phases: what needs no input beforehand, the rest when it comes.

Masks come from streams and never depend on a masked value. So the dealer can run the whole request beforehand, and an
evaluator can rehearse it: the same text on zeros, with a silent peer, which draws the same masks. What the dealer sends
meanwhile goes into the second evaluator's preprocessing. All streams of the run start from a key of its own, derived
from the pair's secret and the id of the preprocessing, and that key is used for nothing else. This file must not know
models.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey
from puma.errors import PreprocessingError
from puma.mpc.cost import message_bytes
from puma.mpc.party import DEALER, FIRST, SECOND, Party
from puma.mpc.share import Share
from puma.net import Link
from puma.net.null import NullLink
from puma.store.preprocessing import Header, Item, Writer
from puma.wire import messages as msg

LENGTH = struct.Struct("<Q")


def ready(preprocessing: Item | None, request: msg.Generate | msg.Encode) -> Item:
    """What is ready for the next request; PreprocessingError unless it was made for this one."""
    if preprocessing is None or preprocessing.header.id != request.preprocessing:
        raise PreprocessingError("the request names preprocessing that is not ready", "take it before each request")
    if msg.bare(preprocessing.header.request) != msg.bare(request):
        raise PreprocessingError("the preprocessing was made for another request", "prepare some for this one")
    if isinstance(request, msg.Generate) and request.paced:
        raise PreprocessingError("a request whose end is open cannot be prepared", "ask for so many tokens")
    return preprocessing


class Kept(NullLink):
    """The dealer's link in a rehearsal of the second evaluator: what comes is kept as well."""

    def __init__(self, link: Link, writer: Writer) -> None:
        self._link, self._writer = link, writer

    def recv(self, size: int) -> memoryview:
        """The next frame, which is also written down."""
        payload = self._link.recv(size)
        self._writer.write(payload)
        return payload

    def check(self) -> None:
        """As the real link's."""
        self._link.check()


class Played(NullLink):
    """The dealer's link of the second evaluator once the request has come: what was kept, in the same order."""

    def __init__(self, link: Link, preprocessing: Item) -> None:
        self._link, self._preprocessing = link, preprocessing

    def recv(self, size: int) -> memoryview:
        """The next bytes that were kept."""
        return self._preprocessing.read(size)

    def check(self) -> None:
        """As the real link's."""
        self._link.check()


class Written:
    """A precomputed in a rehearsal."""

    rehearsing = True

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def known(self, make: Callable[[], Tensor], shape: tuple[int, ...], bits: int) -> Tensor:
        """Made now and written down."""
        words = make()
        self._writer.write(kernels.to_wire(kernels.pack(words, bits)))
        return words


class Read:
    """A precomputed in the run that was rehearsed."""

    rehearsing = False

    def __init__(self, preprocessing: Item) -> None:
        self._preprocessing = preprocessing

    def known(self, make: Callable[[], Tensor], shape: tuple[int, ...], bits: int) -> Tensor:
        """Read in the order of the rehearsal."""
        packed = self._preprocessing.read(message_bytes(torch.Size(shape).numel(), bits))
        return kernels.unpack(kernels.from_wire(packed), bits, shape)


@contextmanager
def rehearsal(
    party: Party, begin: Callable[[Header], Writer], sharing: bytes, order: msg.Prepare
) -> Generator[Writer, None, None]:
    """Meanwhile the party runs the request ahead; in the end the preprocessing is kept, or on an error nothing is.

    `begin` makes the item that takes it.
    """
    keys = party.child_keys(f"preprocessing {order.id.hex()}")
    secret = b"" if party.is_dealer else keys[DEALER].secret
    header = Header(id=order.id, rank=party.rank, sharing=sharing, request=order.request, secret=secret)
    writer = begin(header)
    try:
        links = dict(party.links)
        if party.rank == FIRST:
            links |= {DEALER: NullLink(), SECOND: NullLink()}
        elif party.rank == SECOND:
            links |= {DEALER: Kept(party.links[DEALER], writer), FIRST: NullLink()}
        with party.under(keys, links, None if party.is_dealer else Written(writer)):
            yield writer
        writer.finish()
    finally:
        writer.discard()
    if not party.is_dealer:
        party.ledger.reset()  # nothing has left


@contextmanager
def performance(party: Party, preprocessing: Item) -> Generator[None, None, None]:
    """Meanwhile an evaluator runs the request itself, on what it has prepared."""
    links = dict(party.links)
    if party.rank == SECOND:
        links[DEALER] = Played(party.links[DEALER], preprocessing)
    # What the evaluators draw in common needs no agreement with what was rehearsed, only to be fresh.
    keys = party.child_keys(f"preprocessing {preprocessing.header.id.hex()}") | {
        DEALER: PairKey(preprocessing.header.secret)
    }
    with party.under(keys, links, Read(preprocessing)):
        yield


def keep_output(writer: Writer, share: Share) -> None:
    """The dealer's components of an output, which depend on no input."""
    result = msg.encode(msg.Result(tuple(share.shape), share.bits, share.frac))
    parts = [kernels.to_wire(kernels.pack(c, share.bits)) for c in share.components]
    writer.write(LENGTH.pack(len(result)), LENGTH.pack(sum(map(len, parts))))
    writer.write(result)
    writer.write(*parts)


def kept_outputs(preprocessing: Item) -> Iterator[tuple[bytes, memoryview]]:
    """Each output's description and components, ready to be sent."""
    while preprocessing.left:
        lengths = preprocessing.read(2 * LENGTH.size)
        description, parts = (LENGTH.unpack_from(lengths, at)[0] for at in (0, LENGTH.size))
        yield bytes(preprocessing.read(description)), preprocessing.read(parts)
