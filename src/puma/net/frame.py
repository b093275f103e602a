"""The one wire format: a frame is a 32-byte header and a payload. Pure functions between headers and
bytes; this file opens no socket and does not know what a payload means. Everything in a header is
checked before a byte of payload is read, and a refusal names the field that was wrong."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from puma.errors import FrameError

MAGIC = b"PUMA"
VERSION = 2
HEADER_BYTES = 32
MAX_DATA = 1 << 30
MAX_CONTROL = 16 << 20
MAX_TEXT = 4096

# magic, version, kind, reserved, lane, reserved, sequence, length; little-endian, as the words on the wire.
_LAYOUT = struct.Struct("<4sHBBHHQQ4x")
_pack = _LAYOUT.pack
_unpack = _LAYOUT.unpack
_VERSION_HINT = "the other side speaks another protocol, or is not Puma; run the same version everywhere"


class Kind(enum.IntEnum):
    """What a frame is for."""

    HELLO = 1
    DATA = 2
    CONTROL = 3
    ERROR = 4
    BYE = 5
    BEAT = 6  # nothing but that the sender lives


DEFAULT_LIMITS: dict[Kind, int] = {
    Kind.HELLO: MAX_TEXT,
    Kind.DATA: MAX_DATA,
    Kind.CONTROL: MAX_CONTROL,
    Kind.ERROR: MAX_TEXT,
    Kind.BYE: 0,
    Kind.BEAT: 0,
}
_KINDS = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Header:
    """One frame announced: its kind, lane, number among the frames of its kind, and payload length."""

    kind: Kind
    sequence: int
    length: int
    lane: int = 0


def header_bytes(kind: int, sequence: int, length: int, lane: int = 0) -> bytes:
    """The 32 bytes that announce a frame; no `Header` is made, for thousands of small frames a second pass here."""
    return _pack(MAGIC, VERSION, kind, 0, lane, 0, sequence, length)


def parse_header(data: bytes | bytearray | memoryview, limits: dict[Kind, int] = DEFAULT_LIMITS) -> Header:
    """The header that these 32 bytes spell, or FrameError."""
    if len(data) != HEADER_BYTES:
        raise FrameError(f"a frame header has {HEADER_BYTES} bytes, not {len(data)}", _VERSION_HINT)
    magic, version, code, zero1, lane, zero2, sequence, length = _unpack(data)
    if magic != MAGIC:
        raise FrameError(f"bad magic in a frame header: {bytes(magic)!r}", _VERSION_HINT)
    if version != VERSION:
        raise FrameError(f"bad version in a frame header: {version}, here {VERSION}", _VERSION_HINT)
    kind = _KINDS.get(code)
    if kind is None:
        raise FrameError(f"bad kind in a frame header: {code}", _VERSION_HINT)
    if zero1 or zero2 or any(data[28:]):
        raise FrameError("bad reserved bytes in a frame header: not zero", _VERSION_HINT)
    if length > limits[kind]:
        raise FrameError(
            f"bad length in a frame header: {length} bytes of {kind.name.lower()}, at most {limits[kind]}",
            "the sender must split what it sends, or is not Puma",
        )
    return Header(kind, sequence, length, lane)
