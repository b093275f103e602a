"""What decides how a prompt becomes tokens is what the client saw before, or an error until it says otherwise."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import msgspec
import pytest

from puma.client import seen
from puma.client.tokens.own_files import own_files
from puma.errors import CheckpointError, StoreError, UsageError
from puma.models.config import Llama
from puma.wire import messages as msg
from tests.models import tiny

CONFIG = Llama(vocab_size=28, hidden_size=24, intermediate_size=20, layers=1, heads=2)


def card(**files: bytes) -> msg.Card:
    listed = [msg.File(name, len(data), hashlib.sha256(data).digest()) for name, data in files.items()]
    return msg.Card("tiny", eos=[2], files=listed)


def test_the_first_sight_counts_until_a_change_is_accepted(tmp_path: Path) -> None:
    record = tmp_path / "state" / "seen.json"
    first = seen.digests(CONFIG, card(tokenizer=b"one", template=b"{{ messages }}"))
    assert seen.check(record, "cluster/tiny", first) == "new"
    assert seen.check(record, "cluster/tiny", first) == "same"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600 and stat.S_IMODE(record.parent.stat().st_mode) == 0o700
    other = seen.digests(CONFIG, card(tokenizer=b"one", template=b"{{ messages }} pad"))
    for _ in range(2):
        with pytest.raises(UsageError, match="its template changed") as failure:
            seen.check(record, "cluster/tiny", other)
        assert "--accept-changes" in failure.value.hint
    assert seen.check(record, "another/tiny", other) == "new"
    assert seen.check(record, "cluster/tiny", other, accept=True) == "changed"
    assert seen.check(record, "cluster/tiny", other) == "same"
    with pytest.raises(UsageError):
        seen.check(record, "cluster/tiny", first)


def test_all_that_decides_is_part_of_it() -> None:
    whole = card(tokenizer=b"one")
    before = seen.digests(CONFIG, whole)
    changed = [
        seen.digests(msgspec.structs.replace(CONFIG, context=64), whole),
        seen.digests(CONFIG, msgspec.structs.replace(whole, eos=[3])),
        seen.digests(CONFIG, card(tokenizer=b"two")),
        seen.digests(CONFIG, card(tokenizer=b"one", template=b"")),
    ]
    assert all(other != before for other in changed)
    assert seen.digests(CONFIG, msgspec.structs.replace(whole, version="2", max_tokens=5)) == before


def test_what_a_client_brings_itself_is_not_looked_at(tmp_path: Path) -> None:
    record = tmp_path / "state" / "seen.json"
    first, second = (seen.digests(CONFIG, card(tokenizer=text, template=b"")) for text in (b"one", b"two"))
    third = seen.digests(CONFIG, card(tokenizer=b"two", template=b"pad"))
    assert seen.check(record, "tiny", first) == "new"
    assert seen.check(record, "tiny", second, own={"tokenizer"}) == "same"
    with pytest.raises(UsageError, match="its template changed"):
        seen.check(record, "tiny", third, own={"tokenizer"})
    assert seen.check(record, "tiny", third, own=seen.ALL) == "same"
    other = seen.digests(msgspec.structs.replace(CONFIG, context=64), card())
    with pytest.raises(UsageError, match="its config changed"):
        seen.check(record, "tiny", other, own=seen.ALL)
    assert seen.check(record, "tiny", first) == "same"


def test_a_record_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "seen.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        seen.check(tmp_path / "seen.json", "m", {})


def test_a_client_brings_its_own_tokenizer(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "llama")
    tokenizer, files, whole = own_files(folder / "tokenizer.json")
    assert tokenizer.encode("the cat").ids and not files and not whole
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    tokenizer, files, whole = own_files(folder)
    assert whole and tokenizer.encode("the cat").ids and files["chat_template.jinja"]() == b"{{ messages }}"
    for wrong in (tmp_path / "nowhere", tmp_path, folder / "config.json"):
        with pytest.raises((CheckpointError, UsageError)):
            own_files(wrong)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(CheckpointError, match="names a GPT2Tokenizer"):  # as its owner would be told
        own_files(folder)


def test_weights_that_were_shared_anew_are_a_change(tmp_path: Path) -> None:
    record, same = tmp_path / "state" / "seen.json", card(tokenizer=b"one")
    bare = seen.digests(CONFIG, same)
    first, second = (seen.digests(CONFIG, same, commitment) for commitment in (b"1" * 32, b"2" * 32))
    assert seen.check(record, "m", bare) == "new"
    assert seen.check(record, "m", first) == "same"  # the first commitment to what is known already
    assert seen.check(record, "m", first, own=seen.ALL) == "same"
    for other in (second, bare):
        for own in (frozenset[str](), seen.ALL):
            with pytest.raises(UsageError, match="its weights were shared anew"):
                seen.check(record, "m", other, own=own)
    both = seen.digests(CONFIG, card(tokenizer=b"two"), b"2" * 32)
    with pytest.raises(UsageError, match="its tokenizer and weights changed"):
        seen.check(record, "m", both)
    assert seen.check(record, "m", both, accept=True) == "changed"
    assert seen.check(record, "m", both) == "same"
