"""What owner, client and parties say to each other besides words of shares; strict msgspec structs.

Tensors follow as data frames. Nothing here is secret except the mask seeds, which go to the two parties that share
them.
"""

from __future__ import annotations

import msgspec

from puma.models.config import Config

FRAME_WORDS = 1 << 20  # of a parameter's words in one data frame, at most


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """Name, shape and fixed-point format of one shared parameter."""

    name: str
    shape: tuple[int, ...]
    bits: int
    frac: int


class Load(msgspec.Struct, frozen=True, tag="load", forbid_unknown_fields=True):
    """A model follows: to each evaluator the packed words of each tensor, in data frames of FRAME_WORDS words and a
    shorter last one; to the dealer nothing but the seeds.

    `sharing` is the same fresh number at all parties; with a name in `keep`, the model goes into the party's store.
    """

    config: Config
    tensors: list[TensorSpec]
    seeds: list[bytes]
    keep_masks: bool
    alias: dict[str, str] = {}  # parameters that are another tensor under one more name
    sharing: bytes = b""
    keep: str = ""


class Open(msgspec.Struct, frozen=True, tag="open", forbid_unknown_fields=True):
    """Serve a model of the party's store; answered by Opened."""

    name: str


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tokens of prompts of these lengths, one prompt after the other, as serving/prompt.py seals them.

    `types` are one a token, or none; `approximation` is the session's; to each evaluator a data frame follows.
    """

    lengths: list[int]
    masks: list[bytes]
    choices: list[bytes] = []
    types: list[int] = []
    approximation: str = "spline"

    @property
    def tokens(self) -> int:
        """Of all prompts."""
        return sum(self.lengths)


class Generate(msgspec.Struct, frozen=True, tag="generate", forbid_unknown_fields=True):
    """Greedy generation of a public number of tokens for each prompt; a result is one token of each."""

    input: Input
    tokens: int
    material: bytes = b""


class Encode(msgspec.Struct, frozen=True, tag="encode", forbid_unknown_fields=True):
    """One pass: "hidden" states of all tokens, their sum for each prompt ("pooled"), or its class "logits"."""

    input: Input
    output: str
    material: bytes = b""


class Prepare(msgspec.Struct, frozen=True, tag="prepare", forbid_unknown_fields=True):
    """Do beforehand what no input is needed for; `id` is fresh, the input's seeds are final and no data follows."""

    id: bytes
    request: Generate | Encode


class Take(msgspec.Struct, frozen=True, tag="take", forbid_unknown_fields=True):
    """Get this material ready for the next request: it is used up from now on; answered by Taken."""

    id: bytes


class SelfTest(msgspec.Struct, frozen=True, tag="selftest", forbid_unknown_fields=True):
    """Multiply and compare a few public numbers under masks, and return the results."""


class Quit(msgspec.Struct, frozen=True, tag="quit"):
    """End of the session."""


Request = Load | Open | Generate | Encode | Prepare | Take | SelfTest | Quit


class Spent(msgspec.Struct, frozen=True, array_like=True):
    """A party's ledger under one name."""

    name: str
    seconds: float
    rounds: int
    online: int
    offline: int


class Report(msgspec.Struct, frozen=True, tag="report"):
    """What a request cost this party."""

    spent: list[Spent]
    seconds: float
    prefill: float
    cpu_seconds: float
    peak_rss_mib: float
    material: int = 0  # bytes kept for a later request


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """A stored model is ready: which sharing it is, and its config; neither if the store does not hold it."""

    sharing: bytes
    config: Config | None


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """Whether the material is ready: what is wrong with it, or nothing."""

    problem: str


class Result(msgspec.Struct, frozen=True, tag="result"):
    """One output share; its two components follow as one data frame."""

    shape: tuple[int, ...]
    bits: int
    frac: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The party gave up; the class of error, what happened and the hint."""

    kind: str
    message: str
    hint: str


Reply = Report | Result | Opened | Taken | Failed

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def bare(request: Generate | Encode) -> Generate | Encode:
    """What everyone may know of a request: all but its seeds and its material."""
    public = msgspec.structs.replace(request.input, masks=[], choices=[])
    return msgspec.structs.replace(request, input=public, material=b"")


def encode(message: Request | Reply) -> bytes:
    return _encoder.encode(message)


def decode_request(payload: bytes) -> Request:
    return _requests.decode(payload)


def decode_reply(payload: bytes) -> Reply:
    return _replies.decode(payload)
