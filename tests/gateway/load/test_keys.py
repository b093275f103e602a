"""API keys in a file: who may ask, how often, and how much at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from puma.errors import ConfigError
from puma.gateway.load.keys import ANYBODY, Key, Keys, digest
from puma.gateway.refusals import Refused

FILE = f"""
[[key]]
name = "alice"
key = "sk-alice-1"
requests_a_minute = 2
tokens_in_flight = 100

[[key]]
name = "bob"
sha256 = "{digest("sk-bob-22")}"
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def written(folder: Path, text: str) -> Path:
    path = folder / "keys.toml"
    path.write_text(text)
    return path


def test_a_file_of_keys(tmp_path: Path) -> None:
    keys = Keys.read(written(tmp_path, FILE))
    alice, bob = keys.of("Bearer sk-alice-1"), keys.of("bearer  sk-bob-22")
    assert (alice.name, alice.requests, alice.tokens) == ("alice", 2, 100) and bob.name == "bob"
    assert keys.asked and keys.of("Bearer sk-alice-1") is alice
    assert "sk-" not in repr(keys) and "sk-" not in repr(alice)
    for shown in (
        None,
        "",
        "Bearer",
        "Bearer sk-alice-2",
        "Basic sk-alice-1",
        "sk-alice-1",
        f"Bearer {digest('sk-bob-22')}",
    ):
        with pytest.raises(Refused) as refused:
            keys.of(shown)
        assert refused.value.status == 401 and refused.value.code == "invalid_api_key"
        assert refused.value.headers["www-authenticate"] == "Bearer"
    assert not Keys().asked and Keys().of(None) is ANYBODY


@pytest.mark.parametrize(
    "text",
    [
        "", "[[key]]\n", '[[key]]\nname = "a"\n', "key = 3", "[[key", '[[key]]\nname = "a"\nkey = "short"\n',
        '[[key]]\nname = "a"\nkey = "sk-12345"\nmore = 1\n',
        f'[[key]]\nname = "a"\nkey = "sk-12345"\nsha256 = "{digest("sk-12345")}"\n',
        '[[key]]\nname = "a"\nkey = "sk-12345"\n[[key]]\nname = "b"\nkey = "sk-12345"\n',
        '[[key]]\nname = "a"\nkey = "sk-12345"\n[[key]]\nname = "a"\nkey = "sk-12346"\n',
        '[[key]]\nname = "a"\nkey = "sk-12345"\nrequests_a_minute = -1\n',
    ],
)  # fmt: skip
def test_files_that_are_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keys\.toml"):
        Keys.read(written(tmp_path, text))
    with pytest.raises(ConfigError, match="nowhere"):
        Keys.read(tmp_path / "nowhere")


def test_requests_of_a_minute() -> None:
    clock = Clock()
    key = Key("a", requests=2, clock=clock)
    key.begin(1)
    key.begin(1)
    with pytest.raises(Refused) as refused:
        key.begin(1)
    assert refused.value.status == 429 and refused.value.headers["retry-after"] == "30"
    clock.now = 29
    with pytest.raises(Refused) as refused:
        key.begin(1)
    assert refused.value.headers["retry-after"] == "1"
    clock.now = 30.01
    key.begin(1)


def test_tokens_in_flight() -> None:
    key = Key("a", tokens=10)
    key.begin(6)
    with pytest.raises(Refused) as refused:
        key.begin(5)
    assert refused.value.status == 429 and refused.value.kind == "tokens" and refused.value.headers["retry-after"]
    key.begin(4)
    key.end(6)
    key.begin(5)
    with pytest.raises(Refused) as refused:
        key.begin(11)
    assert refused.value.status == 400, "that will never fit"
