"""One-time material as files: in memory only, whole or not at all, and read at most once."""

from __future__ import annotations

import contextlib
import stat
import threading
from pathlib import Path

import pytest

from puma.errors import MaterialError
from puma.store import folders
from puma.store.prepared_requests import Ticket, Tickets
from puma.store.preprocessing import ALIGN, Header, Shelf
from puma.wire.messages import Encode, Generate, Input
from puma.wire.prompt import Seeds

SHARING, ID = b"s" * 16, b"i" * 16
REQUEST = Generate(Input([3], [b"m" * 32]), 2)


def header(identity: bytes = ID) -> Header:
    return Header(id=identity, rank=1, sharing=SHARING, request=REQUEST, secret=b"k" * 32)


def made(shelf: Shelf, identity: bytes = ID) -> int:
    writer = shelf.begin(header(identity))
    writer.write(b"abc", b"defg")
    writer.write(bytes(range(200)))
    return writer.finish()


def test_records_come_back_in_order_and_aligned(memory: Path) -> None:
    size = made(Shelf(memory))
    assert Shelf(memory).sizes() == [size] and size % ALIGN == 0
    material = Shelf(memory).take(SHARING, ID)
    assert material.header == header()
    assert bytes(material.read(7)) == b"abcdefg"
    assert material._at % ALIGN == 0
    record = material.read(200)
    record[0] = 9  # the caller's to keep
    assert bytes(record[1:]) == bytes(range(1, 200)) and material.left == 0
    with pytest.raises(MaterialError, match="ends too early"):
        material.read(1)


def test_it_is_gone_before_it_is_read(memory: Path) -> None:
    shelf = Shelf(memory)
    made(shelf)
    material = shelf.take(SHARING, ID)
    assert shelf.sizes() == []
    with pytest.raises(MaterialError, match="missing or has been used"):
        shelf.take(SHARING, ID)
    assert bytes(material.read(7)) == b"abcdefg"


def test_one_of_many_takers_gets_it(memory: Path) -> None:
    for _ in range(20):
        made(Shelf(memory))
        start, got = threading.Barrier(4), []

        def take(start: threading.Barrier = start, got: list[object] = got) -> None:
            start.wait()
            with contextlib.suppress(MaterialError):
                got.append(Shelf(memory).take(SHARING, ID))

        takers = [threading.Thread(target=take) for _ in range(4)]
        for taker in takers:
            taker.start()
        for taker in takers:
            taker.join()
        assert len(got) == 1


def test_an_id_serves_once(memory: Path) -> None:
    shelf = Shelf(memory)
    made(shelf)
    with pytest.raises(MaterialError, match="made before"):
        shelf.begin(header())
    made(shelf, b"j" * 16)
    assert len(shelf.sizes()) == 2


def test_nothing_is_left_of_what_was_not_finished(memory: Path) -> None:
    shelf = Shelf(memory)
    writer = shelf.begin(header())
    writer.write(bytes(1 << 21))
    writer.discard()
    assert not any(path.is_file() for path in memory.rglob("*"))
    dead = shelf.begin(header())
    dead.write(bytes(1 << 21))
    dead._file.close()
    dead._incoming.close()  # as the system does for a process that has died
    assert shelf.sizes() == [] and any(path.is_file() for path in memory.rglob("*"))
    made(shelf)
    assert len([path for path in memory.rglob("*") if path.is_file()]) == 1


def test_nobody_else_may_look(memory: Path) -> None:
    made(Shelf(memory))
    for path in memory.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MEMORY", {})
    with pytest.raises(MaterialError, match="must not reach a disk") as refused:
        Shelf(tmp_path / "p1").begin(header())
    assert "/dev/shm" in refused.value.hint
    with pytest.raises(MaterialError, match="must not reach a disk"):
        Tickets(tmp_path / "client").add(ticket())
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "empty"])
def test_damage_is_noticed(memory: Path, damage: str) -> None:
    made(Shelf(memory))
    (path,) = (path for path in memory.rglob("*") if path.is_file())
    content = bytearray(path.read_bytes())
    content[3] ^= damage == "flip"
    path.write_bytes({"flip": content, "cut": content[:-ALIGN], "longer": content + b"x", "empty": b""}[damage])
    with pytest.raises(MaterialError, match="is damaged"):
        Shelf(memory).take(SHARING, ID)
    assert not path.exists()


def test_a_replaced_sharing_takes_its_material_along(memory: Path) -> None:
    shelf = Shelf(memory)
    made(shelf)
    shelf.discard(b"t" * 16)
    assert len(shelf.sizes()) == 1
    shelf.discard(SHARING)
    assert shelf.sizes() == []


def ticket(identity: bytes = ID, tokens: int = 2) -> Ticket:
    seeds = Seeds.fresh()
    request = Generate(Input([3], []), tokens)
    return Ticket(
        id=identity, sharing=SHARING, request=request, choices=seeds.choices, masks=seeds.masks,
        seconds=1.0, offline=2, sizes=[1, 2, 3],
    )  # fmt: skip


def test_tickets_fit_one_request_and_serve_once(memory: Path) -> None:
    tickets = Tickets(memory)
    request = Generate(Input([3], []), 2)
    assert tickets.take(SHARING, request) is None
    first, second, longer = ticket(), ticket(b"j" * 16), ticket(b"k" * 16, tokens=3)
    for one in (first, second, longer):
        tickets.add(one)
    assert len(tickets.all()) == 3
    for other in (Generate(Input([4], []), 2), Generate(Input([3], []), 1), Encode(Input([3], []), "hidden")):
        assert tickets.take(SHARING, other) is None
    assert tickets.take(b"t" * 16, request) is None
    assert [Tickets(memory).take(SHARING, request) for _ in range(3)] == [first, second, None]
    assert tickets.all() == [longer]
    (left,) = (path for path in memory.rglob("*") if path.is_file())
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    left.write_bytes(b"{}")
    with pytest.raises(MaterialError, match="cannot be read"):
        tickets.take(SHARING, request)
