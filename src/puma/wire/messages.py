"""What owner, client and parties say to each other besides words of shares; strict msgspec structs.

Tensors follow as data frames. Nothing here is secret except the mask seeds, which go to the two parties that share
them.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from puma.errors import ProtocolError
from puma.models.config import Config
from puma.wire.beside.kept import Prefix, Recall
from puma.wire.beside.network import Functions, Surveyed
from puma.wire.canaries import Commit, Committed, Disclosed, Reveal
from puma.wire.cards import Base as Base
from puma.wire.cards import Card as Card  # what is said of a model is told by these names, too
from puma.wire.cards import File as File
from puma.wire.cards import OpenWeights as OpenWeights
from puma.wire.cards import Place as Place
from puma.wire.cards import Provenance as Provenance
from puma.wire.cards import TensorSpec as TensorSpec
from puma.wire.fields import MANY, Bits, Digest, Frac, Id, Name, Seeds, Shape, Size, Small, Text
from puma.wire.limits import MOST_BEAMS, MOST_DRAFTS
from puma.wire.receipts import Commitment, Signed

T = TypeVar("T")
Places = Annotated[list[Small], msgspec.Meta(max_length=MOST_DRAFTS + 1)]
Tensors = Annotated[list[TensorSpec], msgspec.Meta(max_length=MANY)]
Alias = Annotated[dict[Name, Name], msgspec.Meta(max_length=MANY)]
NEXT = "next logits"  # of every token of a prompt the logits of the next one: whoever sees them can rebuild the head
OUTPUTS = ("hidden", "pooled", "logits", "tokens", NEXT)
EVERY_TOKEN = ("hidden", NEXT)  # outputs that have a row for each token
POLICY_HINT = "sample by temperature alone, which the parties do, or let the owner share with reveal_logits"


class Open(msgspec.Struct, frozen=True, tag="open", forbid_unknown_fields=True):
    """Serve a model of the party's store, computed with this approximation; answered by Opened."""

    name: Name
    approximation: Name = "spline"


class Offer(msgspec.Struct, frozen=True, tag="offer", forbid_unknown_fields=True):
    """A model, which may be taken up again where an earlier upload of the same sharing broke off. Answered by Held.

    Then follow all files of the card, and to each evaluator the packed words of the parameters that it lacks, in data
    frames of FRAME_WORDS words and a shorter last one, each parameter with its Checksum behind it; to the dealer
    nothing but the seeds. Answered by Held again. Only Publish makes the model visible. `sharing` is the same fresh
    number at all parties. Without `checksums`, as between processes of one machine, none come, and nothing is resumed.
    Of public weights the numbers come as they are, and no seeds; or nothing comes, because they lie in `places` of the
    one machine, one for each tensor.
    """

    card: Card
    config: Config
    tensors: Tensors
    seeds: Seeds
    keep_masks: bool
    sharing: Id
    alias: Alias = {}  # parameters that are another tensor under one more name
    checksums: bool = True
    salt: Id = b""  # of the commitment to the masked words; the dealer gets none
    places: Annotated[list[Place], msgspec.Meta(max_length=MANY)] = []


class Checksum(msgspec.Struct, frozen=True, tag="checksum", forbid_unknown_fields=True):
    """SHA-256 of the parameter that has just been sent, in wire form."""

    sha256: Digest


class Publish(msgspec.Struct, frozen=True, tag="publish", forbid_unknown_fields=True):
    """All three hold the model that was offered: serve it from now on, in place of an older one; a report answers."""


class Delete(msgspec.Struct, frozen=True, tag="delete", forbid_unknown_fields=True):
    """Forget a model, or what has arrived of one; answered by a report."""

    name: Name


class List(msgspec.Struct, frozen=True, tag="list", forbid_unknown_fields=True):
    """Which models are there? Answered by Listing."""


class Fetch(msgspec.Struct, frozen=True, tag="fetch", forbid_unknown_fields=True):
    """Send a file of the open model's card, in data frames of FRAME_BYTES and a shorter last one."""

    name: Name


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tokens of prompts of these lengths, one prompt after the other, as wire/prompt.py shares them.

    `types` are one a token, or none; `approximation` is the session's; to each evaluator a data frame follows. With
    `padded` it ends with shares of which tokens are only padding, and the lengths, all alike, are not the prompts'.
    Behind the prompts come `begun` tokens for each, with which its answer begins, in models that read it apart.
    `quick`: the functions that are computed in fewer rounds (nn.variants).
    """

    lengths: Annotated[list[Size], msgspec.Meta(max_length=4096)]
    masks: Seeds
    choices: Seeds = []
    types: Annotated[list[Small], msgspec.Meta(max_length=1 << 20)] = []
    padded: bool = False
    approximation: Name = "spline"
    begun: Small = 0
    quick: Functions = ()

    @property
    def tokens(self) -> int:
        """Of all prompts."""
        return sum(self.lengths)


class Generate(msgspec.Struct, frozen=True, tag="generate", forbid_unknown_fields=True):
    """Generation of a public number of tokens for each prompt; a result is one token of each.

    It is the likeliest, or drawn at a positive `temperature` with noise that no party knows. With `reveal` a result is
    logits instead, and the client chooses. `paced`: after each result but the last the parties wait for a Pace. Several
    `beams` continue one prompt. With `drafts` the client sends, too, up to so many tokens of each that may follow. A
    prompt goes on from a `prefix`, and all that is computed of the request is kept under the fresh name `keep`.
    """

    input: Input
    tokens: Size
    preprocessing: Id = b""
    temperature: float = 0.0
    reveal: bool = False
    paced: bool = False
    beams: Annotated[int, msgspec.Meta(ge=1, le=MOST_BEAMS)] = 1
    keep: Id = b""
    prefix: Prefix | None = None
    drafts: Annotated[int, msgspec.Meta(ge=0, le=MOST_DRAFTS)] = 0

    @property
    def fed(self) -> bool:
        """Whether the client sends the tokens of each further step, because it chooses or guesses them."""
        return self.reveal or self.drafts > 0


class Pace(msgspec.Struct, frozen=True, tag="pace", forbid_unknown_fields=True):
    """The client's word between two results of a paced generation: go on, or leave it at that.

    `input` is the token that the client chose for each prompt, if it saw logits, shared like prompts of one token; of
    beams it ends with shares of which columns each does not see (`Cache.branch`). Drafts stand behind a prompt's latest
    token, each following the one that `parents` names, or the one before. Of what prompts that have not got all their
    tokens read last the right ones are `kept`, by their places; those in these places then `leave`. Requests `join`,
    each with its shares in a data frame.
    """

    more: bool
    input: Input | None = None
    leave: Annotated[list[Small], msgspec.Meta(max_length=4096)] = []
    kept: Annotated[list[Places], msgspec.Meta(max_length=4096)] = []
    parents: Annotated[list[Places], msgspec.Meta(max_length=4096)] = []
    join: Annotated[list[Generate], msgspec.Meta(max_length=256)] = []


class Encode(msgspec.Struct, frozen=True, tag="encode", forbid_unknown_fields=True):
    """One pass: "hidden" states of all tokens, each prompt's vector ("pooled"), in which its first `skip` tokens do
    not count, class "logits" of each prompt or token, or the `top` most likely "tokens" at these `rows`, of all
    prompts' tokens, which everyone learns.
    """

    input: Input
    output: Name
    preprocessing: Id = b""
    rows: Annotated[list[Small], msgspec.Meta(max_length=1 << 16)] = []
    top: Small = 1
    skip: Small = 0


class Prepare(msgspec.Struct, frozen=True, tag="prepare", forbid_unknown_fields=True):
    """Do beforehand what no input is needed for; `id` is fresh, the input's seeds are final and no data follows."""

    id: Id
    request: Generate | Encode


class Take(msgspec.Struct, frozen=True, tag="take", forbid_unknown_fields=True):
    """Get this preprocessing ready for the next request: it is used up from now on; answered by Taken."""

    id: Id


class Same(msgspec.Struct, frozen=True, tag="same", forbid_unknown_fields=True):
    """From party to party: SHA-256 over all that the client has said in public in this session, one word after the
    other, which every party must have been told alike (party/agreement.py)."""

    sha256: Digest


class Holds(msgspec.Struct, frozen=True, tag="holds", forbid_unknown_fields=True):
    """From party to party: which sharing of the model that is to be served it has, whether it has tested that one since
    it started, and what is wrong with its part, if something is (party/fitting.py)."""

    sharing: bytes
    tested: bool
    problem: str = ""


class Fits(msgspec.Struct, frozen=True, tag="fits", forbid_unknown_fields=True):
    """From party to party: a digest of what both hold of a model, and the sender's packed components of its check
    vector, which is public."""

    sha256: Digest
    check: tuple[bytes, bytes]


class SelfTest(msgspec.Struct, frozen=True, tag="selftest", forbid_unknown_fields=True):
    """Multiply and compare a few public numbers under masks, and return the results."""


class Survey(msgspec.Struct, frozen=True, tag="survey", forbid_unknown_fields=True):
    """Measure the network between P1 and P2, and say by which plan this request takes least time; no data follows."""

    request: Generate | Encode


class Quit(msgspec.Struct, frozen=True, tag="quit"):
    """End of the session."""


Request = (
    Open | Same | Holds | Fits | Generate | Encode | Prepare | Take | SelfTest | Quit
    | Offer | Checksum | Publish | Delete | List | Fetch | Pace | Recall | Commit | Reveal | Survey
)  # fmt: skip


class Spent(msgspec.Struct, frozen=True, array_like=True):
    """A party's ledger under one name."""

    name: Name
    seconds: float
    rounds: int
    online: int
    offline: int


class Report(msgspec.Struct, frozen=True, tag="report"):
    """What a request cost this party."""

    spent: Annotated[list[Spent], msgspec.Meta(max_length=4096)]
    seconds: float
    prefill: float
    cpu_seconds: float
    peak_rss_mib: float
    preprocessing: int = 0  # bytes kept for a later request
    receipt: Signed | None = None


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """A stored model is ready: which sharing it is, its config and, if it was offered, its card; none of these if the
    store does not hold it."""

    sharing: Id
    config: Config | None
    card: Card | None = None
    reveal_logits: bool = False
    commitment: Commitment | None = None


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The first word of a party to a client or owner: all three have met. `version` is its program's."""

    version: Name


class Held(msgspec.Struct, frozen=True, tag="held"):
    """How many parameters of the model offered are on disk and checked, from the first one on; or that this sharing of
    it has been published already, and nothing more is wanted."""

    tensors: Size
    published: bool = False


class Listed(msgspec.Struct, frozen=True):
    """A stored model: its card and config, which sharing it is, and how many bytes it takes at this party."""

    card: Card
    config: Config
    sharing: Id
    size: int
    commitment: Commitment | None = None


class Listing(msgspec.Struct, frozen=True, tag="listing"):
    """All models that were offered and published."""

    models: Annotated[list[Listed], msgspec.Meta(max_length=4096)]


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """Whether the preprocessing, or what was kept, is ready: what is wrong with it, or nothing."""

    problem: Text


class Result(msgspec.Struct, frozen=True, tag="result"):
    """One output share; its two components follow as one data frame."""

    shape: Shape
    bits: Bits
    frac: Frac


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The party gave up; the class of error, what happened and the hint."""

    kind: Name
    message: Text
    hint: Text


Reply = Report | Result | Opened | Taken | Failed | Ready | Held | Listing | Committed | Disclosed | Surveyed

_encoder = msgspec.msgpack.Encoder()
_canonical = msgspec.msgpack.Encoder(order="deterministic")
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def bare(request: Generate | Encode) -> Generate | Encode:
    """What everyone may know of a request: all but its seeds and its preprocessing."""
    public = msgspec.structs.replace(request.input, masks=[], choices=[])
    return msgspec.structs.replace(request, input=public, preprocessing=b"")


def public(request: Request) -> Request:
    """What all three parties are told alike of a request: all but the seeds, of which each gets its own."""
    if isinstance(request, Prepare):
        return msgspec.structs.replace(request, request=public(request.request))
    if isinstance(request, Offer):
        return msgspec.structs.replace(request, seeds=[], salt=b"")
    if isinstance(request, Pace) and request.join:
        request = msgspec.structs.replace(request, join=[public(job) for job in request.join])
    if isinstance(request, Generate | Encode | Pace) and request.input is not None:
        seedless = msgspec.structs.replace(request.input, masks=[], choices=[])
        return msgspec.structs.replace(request, input=seedless)
    return request


def canonical(*words: object) -> bytes:
    """The one spelling of these words: equal ones give equal bytes in every process."""
    return _canonical.encode(words)


def encode(message: Request | Reply) -> bytes:
    """A message as the bytes of a control frame."""
    return _encoder.encode(message)


def decode_request(payload: bytes) -> Request:
    """ProtocolError if it is none."""
    return _decoded(_requests, payload)


def decode_reply(payload: bytes) -> Reply:
    """ProtocolError if it is none."""
    return _decoded(_replies, payload)


def _decoded(decoder: msgspec.msgpack.Decoder[T], payload: bytes) -> T:
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, ArithmeticError) as error:
        raise ProtocolError(f"a message cannot be read: {error}", "run the same version of Puma everywhere") from None
