"""How a client names what parties keep of its earlier requests; all of it is public, and said alike to all three."""

from __future__ import annotations

import msgspec

from puma.wire.fields import Id, Size

PREAMBLE = b""  # in place of a name: the model's own preamble, which nobody has asked and nobody needs to recall


class Prefix(msgspec.Struct, frozen=True, array_like=True):
    """So many first tokens of an earlier request of the same client, under the name by which it is kept, or of the
    model's preamble; if this is the `last` one to go on from it, no longer than until it is kept itself."""

    id: Id
    length: Size
    last: bool = False


class Recall(msgspec.Struct, frozen=True, tag="recall", forbid_unknown_fields=True):
    """Is this still kept? The next request may then name it as its prefix; answered by Taken."""

    prefix: Prefix
