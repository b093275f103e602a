"""What the three parties say to each other about the steps that they compute together; strict msgspec structs.

P1 leads. The others tell it which of a client's requests they hold and how far each may go; it tells both which ones
the next step is made of. All of it is public: names, numbers, and digests of what clients said in public. A share or a
seed never travels here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated

import msgspec

from puma.errors import ProtocolError
from puma.wire import messages as msg
from puma.wire.messages import Digest, Size

SessionId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
MOST_ITEMS = 4096


class Item(msgspec.Struct, frozen=True, array_like=True):
    """A request of a client: its session, which the client named, and which of the session's requests it is."""

    session: SessionId
    number: Size


class May(msgspec.Struct, frozen=True, tag="may", forbid_unknown_fields=True):
    """To the leader: here this request may take so many `steps` in all; the digest is of what its client had said in
    public when the last of them were granted."""

    item: Item
    steps: Size
    sha256: Digest


class Gone(msgspec.Struct, frozen=True, tag="gone", forbid_unknown_fields=True):
    """To the leader: nobody here waits for this request any more."""

    item: Item


class Step(msgspec.Struct, frozen=True, tag="step", forbid_unknown_fields=True):
    """From the leader: compute these requests together, in this order. Numbers count from 0 and none comes twice.

    Of each `reads` says how many tokens of its prompt the step reads, 0 once the prompt has been read.
    """

    number: Size
    items: Annotated[list[Item], msgspec.Meta(min_length=1, max_length=MOST_ITEMS)]
    reads: Annotated[list[Size], msgspec.Meta(max_length=MOST_ITEMS)]


class Left(msgspec.Struct, frozen=True, tag="left", forbid_unknown_fields=True):
    """From the leader: after the steps that were said before, this request takes no more; `problem` says why, unless
    its client wanted it so."""

    item: Item
    problem: Annotated[str, msgspec.Meta(max_length=2000)] = ""


Word = May | Gone | Step | Left

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Word] = msgspec.msgpack.Decoder(Word)


def encode(word: Word) -> bytes:
    """A word as the bytes of a control frame."""
    return _encoder.encode(word)


def following(history: bytes, word: Step | Left, said: Sequence[bytes] = ()) -> bytes:
    """SHA-256 over all that the leader has said up to this word: the digest up to the one before, and the word; and
    over what the clients of a step's requests have `said`, a digest for each."""
    return hashlib.sha256(b"puma/1|steps|" + history + msg.canonical(encode(word), *said)).digest()


def decode(payload: bytes) -> Word:
    """ProtocolError if it is none."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ProtocolError(f"a message cannot be read: {error}", "run the same version of Puma everywhere") from None
