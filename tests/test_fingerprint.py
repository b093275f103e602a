"""Fingerprints: one spelling, read back in any, and no slip of the hand goes unnoticed."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puma import fingerprint
from puma.errors import ConfigError

TEXT = fingerprint.of_key(bytes(range(32)))


def test_a_known_one() -> None:
    assert TEXT == "puma1:aaaqeaye-audaocaj-bifqydio-b4ibceqt-cqkrmfyy-denbwha5-dyp4f2om"


@given(st.binary(min_size=32, max_size=32))
def test_round_trip(key: bytes) -> None:
    text = fingerprint.of_key(key)
    assert fingerprint.key_of(text) == key
    for other in (text.upper(), text.replace("-", ""), f"  {text}\n", text.replace("-", " ")):
        assert fingerprint.canonical(other) == text


@given(st.integers(6, len(TEXT) - 1), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_another_letter_is_noticed(at: int, letter: str) -> None:
    if TEXT[at] in ("-", letter):
        return
    with pytest.raises(ConfigError, match="mistyped"):
        fingerprint.key_of(TEXT[:at] + letter + TEXT[at + 1 :])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a fingerprint"),
        ("puma2" + TEXT[5:], "not a fingerprint"),
        (TEXT[:-1], "56 letters .* 55"),
        (TEXT + "a", "56 letters"),
        (TEXT[:-1] + "1", "2 to 7 only"),
        (TEXT[:-1] + "\u00e4", "2 to 7 only"),
    ],
)
def test_what_is_none_is_said(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        fingerprint.key_of(text)
    assert raised.value.hint


@given(st.text(max_size=80) | st.text(max_size=80).map(lambda t: "puma1:" + t))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert fingerprint.of_key(fingerprint.key_of(text)) == fingerprint.canonical(text)


def test_a_key_has_its_size() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        fingerprint.of_key(os.urandom(31))
