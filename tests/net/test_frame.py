"""Headers: every one is read back as written, and no 32 bytes do anything but parse or raise FrameError."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puma.errors import FrameError
from puma.net.frame import DEFAULT_LIMITS, HEADER_BYTES, Header, Kind, header_bytes, parse_header


def encode_header(header: Header) -> bytes:
    return header_bytes(header.kind, header.sequence, header.length, header.lane)


GOOD = encode_header(Header(Kind.DATA, 7, 100))
headers = st.sampled_from(Kind).flatmap(
    lambda kind: st.builds(
        Header,
        st.just(kind),
        st.integers(0, 2**64 - 1),
        st.integers(0, DEFAULT_LIMITS[kind]),
        st.integers(0, 2**16 - 1),
    )
)


@given(headers)
def test_round_trip(header):
    data = encode_header(header)
    assert len(data) == HEADER_BYTES
    assert parse_header(data) == parse_header(memoryview(data)) == header


@given(st.binary(min_size=0, max_size=40) | st.binary(min_size=26, max_size=26).map(lambda b: GOOD[:6] + b))
def test_any_bytes_parse_or_raise(data):
    try:
        assert encode_header(parse_header(data)) == data
    except FrameError as error:
        assert "frame header" in error.message


@given(st.integers(0, HEADER_BYTES * 8 - 1))
def test_no_flipped_bit_goes_unnoticed_by_the_encoding(bit):
    data = bytearray(GOOD)
    data[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(FrameError):
        assert encode_header(parse_header(data)) == data != GOOD


@pytest.mark.parametrize(
    "offset, value, field",
    [
        (0, b"HTTP", "magic"),
        (4, b"\x63\x00", "version"),
        (6, b"\x00", "kind"),
        (6, b"\x63", "kind"),
        (7, b"\x01", "reserved"),
        (10, b"\x01", "reserved"),
        (28, b"\x01", "reserved"),
        (20, b"\x01\x00\x00\x40", "length"),
    ],
)
def test_a_refusal_names_the_field(offset, value, field):
    data = bytearray(GOOD)
    data[offset : offset + len(value)] = value
    with pytest.raises(FrameError, match=f"bad {field}"):
        parse_header(data)


def test_limits_depend_on_the_kind():
    long = Header(Kind.CONTROL, 0, DEFAULT_LIMITS[Kind.CONTROL] + 1)
    with pytest.raises(FrameError, match="bytes of control, at most 16777216"):
        parse_header(encode_header(long))
    with pytest.raises(FrameError, match="at most 10"):
        parse_header(GOOD, {**DEFAULT_LIMITS, Kind.DATA: 10})
