"""Preprocessing on a disk: unreadable without this process, bounded, gone in time."""

from __future__ import annotations

from pathlib import Path

import pytest

from puma.errors import AdmissionError, PreprocessingError
from puma.store import encrypted, folders
from puma.store.encrypted import AT_A_TIME, Cipher, EncryptedStore
from puma.store.preprocessing import ALIGN, START
from tests.store.test_preprocessing import ID, SHARING, header, made

MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder is on a disk."""
    monkeypatch.setattr(folders, "MEMORY", {})


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_a_seal_turned_twice_is_nothing_and_each_byte_has_its_own_place() -> None:
    cipher, plain = Cipher(), memoryview(bytes(range(256)) * (AT_A_TIME // 128))
    turned = memoryview(bytearray(len(plain)))
    cipher.turn(24, plain, turned)
    assert sum(a == b for a, b in zip(plain[:4096], turned)) < 64
    cipher.turn(24 + 1000, turned[1000:], turned[1000:])
    assert turned[1000:] == plain[1000:] and turned[:1000] != plain[:1000]
    other = memoryview(bytearray(len(plain)))
    Cipher().turn(24, plain, other)
    assert other[:1000] != turned[:1000]


def test_records_come_back_and_the_file_tells_nothing(tmp_path: Path) -> None:
    preprocessing_store = EncryptedStore(tmp_path, MIB)
    size = made(preprocessing_store)
    (path,) = files(tmp_path)
    content = path.read_bytes()
    assert len(content) == size and size % ALIGN == 0
    assert not any(known in content[START.size :] for known in (b"abcdefg", bytes(range(16)), ID, b"k" * 8, bytes(16)))
    preprocessing = preprocessing_store.take(SHARING, ID)
    assert not files(tmp_path) and preprocessing.header == header()
    assert bytes(preprocessing.read(7)) == b"abcdefg"
    record = preprocessing.read(200)
    record[0] = 9  # the caller's to keep
    assert bytes(record[1:]) == bytes(range(1, 200)) and preprocessing.left == 0
    with pytest.raises(PreprocessingError, match="missing or has been used"):
        preprocessing_store.take(SHARING, ID)


def test_two_items_are_encrypted_under_two_keys(tmp_path: Path) -> None:
    """The same words twice: what lies on the disk is as different as chance makes it."""
    preprocessing_store = EncryptedStore(tmp_path, MIB)
    for identity in (b"1" * 16, b"2" * 16):
        made(preprocessing_store, identity)
    one, two = (path.read_bytes()[START.size :] for path in files(tmp_path))
    assert len(one) == len(two) > 256 and sum(a == b for a, b in zip(one, two, strict=True)) < len(one) // 16


def test_records_longer_than_a_piece_of_the_stream_come_back(tmp_path: Path) -> None:
    preprocessing_store = EncryptedStore(tmp_path, 16 * MIB)
    long = bytes(range(256)) * (3 * AT_A_TIME // 256) + b"end"
    writer = preprocessing_store.begin(header())
    writer.write(long)
    writer.finish()
    assert bytes(preprocessing_store.take(SHARING, ID).read(len(long))) == long


def test_another_process_cannot_read_it_and_throws_it_away(tmp_path: Path) -> None:
    made(EncryptedStore(tmp_path, MIB))
    later = EncryptedStore(tmp_path, MIB)
    assert not files(tmp_path)
    with pytest.raises(PreprocessingError, match="missing or has been used"):
        later.take(SHARING, ID)


def test_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    preprocessing_store = EncryptedStore(tmp_path, MIB)
    writer = preprocessing_store.begin(header())
    writer.write(bytes(MIB // 2))
    other = preprocessing_store.begin(header(b"j" * 16))
    with pytest.raises(AdmissionError, match="keeps 1 MiB of preprocessing at most") as refused:
        other.write(bytes(MIB // 2))
    assert refused.value.hint
    other.discard()
    writer.finish()
    writer.discard()
    assert len(files(tmp_path)) == 1
    for take in range(3):  # what is taken, dropped or discarded makes room
        late = preprocessing_store.begin(header(b"k" * 16))
        with pytest.raises(AdmissionError):
            late.write(bytes(MIB // 2))
        late.discard()
        (preprocessing_store.take, preprocessing_store.drop, lambda sharing, _: preprocessing_store.discard(sharing))[
            take
        ](SHARING, ID)
        again = preprocessing_store.begin(header())
        again.write(bytes(MIB // 2))
        again.finish()
    preprocessing_store.discard(SHARING)
    assert preprocessing_store._used == 0 and not preprocessing_store._entries and not files(tmp_path)


def test_without_any_room_nothing_is_begun(tmp_path: Path) -> None:
    preprocessing_store = EncryptedStore(tmp_path, 10)
    with pytest.raises(AdmissionError, match="at most"):
        preprocessing_store.begin(header())
    assert not files(tmp_path) and not preprocessing_store._entries and preprocessing_store._used == 0


def test_what_is_not_finished_is_nobodys(tmp_path: Path) -> None:
    preprocessing_store = EncryptedStore(tmp_path, MIB)
    writer = preprocessing_store.begin(header())
    writer.write(bytes(100))
    with pytest.raises(PreprocessingError, match="made before"):
        preprocessing_store.begin(header())
    with pytest.raises(PreprocessingError, match="missing"):
        preprocessing_store.take(SHARING, ID)
    preprocessing_store.drop(SHARING, ID)
    preprocessing_store.discard(b"t" * 16)
    writer.finish()
    assert bytes(preprocessing_store.take(SHARING, ID).read(100)) == bytes(100)


def test_what_nobody_asks_for_goes_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessing_store = EncryptedStore(tmp_path, MIB)
    made(preprocessing_store)
    made(preprocessing_store, b"j" * 16)
    assert len(files(tmp_path)) == 2
    monkeypatch.setattr(encrypted, "KEEP_SECONDS", -1.0)
    made(preprocessing_store, b"k" * 16)
    assert len(files(tmp_path)) == 1
