"""Material on a disk: unreadable without this process, bounded, gone in time."""

from __future__ import annotations

from pathlib import Path

import pytest

from puma.errors import AdmissionError, MaterialError
from puma.store import encrypted as sealed
from puma.store import folders
from puma.store.encrypted import AT_A_TIME, Seal, SealedShelf
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
    seal, plain = Seal(), memoryview(bytes(range(256)) * (AT_A_TIME // 128))
    turned = memoryview(bytearray(len(plain)))
    seal.turn(24, plain, turned)
    assert sum(a == b for a, b in zip(plain[:4096], turned)) < 64
    seal.turn(24 + 1000, turned[1000:], turned[1000:])
    assert turned[1000:] == plain[1000:] and turned[:1000] != plain[:1000]
    other = memoryview(bytearray(len(plain)))
    Seal().turn(24, plain, other)
    assert other[:1000] != turned[:1000]


def test_records_come_back_and_the_file_tells_nothing(tmp_path: Path) -> None:
    shelf = SealedShelf(tmp_path, MIB)
    size = made(shelf)
    (path,) = files(tmp_path)
    content = path.read_bytes()
    assert len(content) == size and size % ALIGN == 0
    assert not any(known in content[START.size :] for known in (b"abcdefg", bytes(range(16)), ID, b"k" * 8, bytes(16)))
    material = shelf.take(SHARING, ID)
    assert not files(tmp_path) and material.header == header()
    assert bytes(material.read(7)) == b"abcdefg"
    record = material.read(200)
    record[0] = 9  # the caller's to keep
    assert bytes(record[1:]) == bytes(range(1, 200)) and material.left == 0
    with pytest.raises(MaterialError, match="missing or has been used"):
        shelf.take(SHARING, ID)


def test_records_longer_than_a_piece_of_the_stream_come_back(tmp_path: Path) -> None:
    shelf = SealedShelf(tmp_path, 16 * MIB)
    long = bytes(range(256)) * (3 * AT_A_TIME // 256) + b"end"
    writer = shelf.begin(header())
    writer.write(long)
    writer.finish()
    assert bytes(shelf.take(SHARING, ID).read(len(long))) == long


def test_another_process_cannot_read_it_and_throws_it_away(tmp_path: Path) -> None:
    made(SealedShelf(tmp_path, MIB))
    later = SealedShelf(tmp_path, MIB)
    assert not files(tmp_path)
    with pytest.raises(MaterialError, match="missing or has been used"):
        later.take(SHARING, ID)


def test_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    shelf = SealedShelf(tmp_path, MIB)
    writer = shelf.begin(header())
    writer.write(bytes(MIB // 2))
    other = shelf.begin(header(b"j" * 16))
    with pytest.raises(AdmissionError, match="keeps 1 MiB of material at most") as refused:
        other.write(bytes(MIB // 2))
    assert refused.value.hint
    other.discard()
    writer.finish()
    writer.discard()
    assert len(files(tmp_path)) == 1
    for take in range(3):  # what is taken, dropped or discarded makes room
        late = shelf.begin(header(b"k" * 16))
        with pytest.raises(AdmissionError):
            late.write(bytes(MIB // 2))
        late.discard()
        (shelf.take, shelf.drop, lambda sharing, _: shelf.discard(sharing))[take](SHARING, ID)
        again = shelf.begin(header())
        again.write(bytes(MIB // 2))
        again.finish()
    shelf.discard(SHARING)
    assert shelf._used == 0 and not shelf._pieces and not files(tmp_path)


def test_without_any_room_nothing_is_begun(tmp_path: Path) -> None:
    shelf = SealedShelf(tmp_path, 10)
    with pytest.raises(AdmissionError, match="at most"):
        shelf.begin(header())
    assert not files(tmp_path) and not shelf._pieces and shelf._used == 0


def test_what_is_not_finished_is_nobodys(tmp_path: Path) -> None:
    shelf = SealedShelf(tmp_path, MIB)
    writer = shelf.begin(header())
    writer.write(bytes(100))
    with pytest.raises(MaterialError, match="made before"):
        shelf.begin(header())
    with pytest.raises(MaterialError, match="missing"):
        shelf.take(SHARING, ID)
    shelf.drop(SHARING, ID)
    shelf.discard(b"t" * 16)
    writer.finish()
    assert bytes(shelf.take(SHARING, ID).read(100)) == bytes(100)


def test_what_nobody_asks_for_goes_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = SealedShelf(tmp_path, MIB)
    made(shelf)
    made(shelf, b"j" * 16)
    assert len(files(tmp_path)) == 2
    monkeypatch.setattr(sealed, "KEEP_SECONDS", -1.0)
    made(shelf, b"k" * 16)
    assert len(files(tmp_path)) == 1
