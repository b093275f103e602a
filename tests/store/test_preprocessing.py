"""One-time preprocessing as files: in memory only, whole or not at all, and read at most once."""

from __future__ import annotations

import contextlib
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from puma.errors import PreprocessingError
from puma.store import folders
from puma.store.prepared_requests import PreparedRequest, PreparedRequests
from puma.store.preprocessing import ALIGN, Header, PreprocessingStore
from puma.wire.input_share import Seeds
from puma.wire.messages import Encode, Generate, Input

SHARING, ID = b"s" * 16, b"i" * 16
REQUEST = Generate(Input([3], [b"m" * 32]), 2)


def header(identity: bytes = ID) -> Header:
    return Header(id=identity, rank=1, sharing=SHARING, request=REQUEST, secret=b"k" * 32)


def made(preprocessing_store: PreprocessingStore, identity: bytes = ID) -> int:
    writer = preprocessing_store.begin(header(identity))
    writer.write(b"abc", b"defg")
    writer.write(bytes(range(200)))
    return writer.finish()


def test_records_come_back_in_order_and_aligned(memory: Path) -> None:
    size = made(PreprocessingStore(memory))
    assert PreprocessingStore(memory).sizes() == [size] and size % ALIGN == 0
    preprocessing = PreprocessingStore(memory).take(SHARING, ID)
    assert preprocessing.header == header()
    assert bytes(preprocessing.read(7)) == b"abcdefg"
    assert preprocessing._at % ALIGN == 0
    record = preprocessing.read(200)
    record[0] = 9  # the caller's to keep
    assert bytes(record[1:]) == bytes(range(1, 200)) and preprocessing.left == 0
    with pytest.raises(PreprocessingError, match="ends too early"):
        preprocessing.read(1)


def test_it_is_gone_before_it_is_read(memory: Path) -> None:
    preprocessing_store = PreprocessingStore(memory)
    made(preprocessing_store)
    preprocessing = preprocessing_store.take(SHARING, ID)
    assert preprocessing_store.sizes() == []
    with pytest.raises(PreprocessingError, match="missing or has been used"):
        preprocessing_store.take(SHARING, ID)
    assert bytes(preprocessing.read(7)) == b"abcdefg"


def test_one_of_many_takers_gets_it(memory: Path) -> None:
    for _ in range(20):
        made(PreprocessingStore(memory))
        start, got = threading.Barrier(4), []

        def take(start: threading.Barrier = start, got: list[object] = got) -> None:
            start.wait()
            with contextlib.suppress(PreprocessingError):
                got.append(PreprocessingStore(memory).take(SHARING, ID))

        takers = [threading.Thread(target=take) for _ in range(4)]
        for taker in takers:
            taker.start()
        for taker in takers:
            taker.join()
        assert len(got) == 1


def test_an_id_serves_once(memory: Path) -> None:
    preprocessing_store = PreprocessingStore(memory)
    made(preprocessing_store)
    with pytest.raises(PreprocessingError, match="made before"):
        preprocessing_store.begin(header())
    made(preprocessing_store, b"j" * 16)
    assert len(preprocessing_store.sizes()) == 2


def test_nothing_is_left_of_what_was_not_finished(memory: Path) -> None:
    preprocessing_store = PreprocessingStore(memory)
    writer = preprocessing_store.begin(header())
    writer.write(bytes(1 << 21))
    writer.discard()
    assert not any(path.is_file() for path in memory.rglob("*"))
    dead = preprocessing_store.begin(header())
    dead.write(bytes(1 << 21))
    dead._file.close()
    dead._incoming.close()  # as the system does for a process that has died
    assert preprocessing_store.sizes() == [] and any(path.is_file() for path in memory.rglob("*"))
    made(preprocessing_store)
    assert len([path for path in memory.rglob("*") if path.is_file()]) == 1


def test_nobody_else_may_look(memory: Path) -> None:
    made(PreprocessingStore(memory))
    for path in memory.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MEMORY", {})
    with pytest.raises(PreprocessingError, match="must not reach a disk") as refused:
        PreprocessingStore(tmp_path / "p1").begin(header())
    assert "/dev/shm" in refused.value.hint
    with pytest.raises(PreprocessingError, match="must not reach a disk"):
        PreparedRequests(tmp_path / "client").add(prepared_request())
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "empty"])
def test_damage_is_noticed(memory: Path, damage: str) -> None:
    made(PreprocessingStore(memory))
    (path,) = (path for path in memory.rglob("*") if path.is_file())
    content = bytearray(path.read_bytes())
    content[3] ^= damage == "flip"
    path.write_bytes({"flip": content, "cut": content[:-ALIGN], "longer": content + b"x", "empty": b""}[damage])
    with pytest.raises(PreprocessingError, match="is damaged"):
        PreprocessingStore(memory).take(SHARING, ID)
    assert not path.exists()


def test_a_replaced_sharing_takes_its_preprocessing_along(memory: Path) -> None:
    preprocessing_store = PreprocessingStore(memory)
    made(preprocessing_store)
    preprocessing_store.discard(b"t" * 16)
    assert len(preprocessing_store.sizes()) == 1
    preprocessing_store.discard(SHARING)
    assert preprocessing_store.sizes() == []


def prepared_request(identity: bytes = ID, tokens: int = 2) -> PreparedRequest:
    seeds = Seeds.fresh()
    request = Generate(Input([3], []), tokens)
    return PreparedRequest(
        id=identity, sharing=SHARING, request=request, choices=seeds.choices, masks=seeds.masks,
        seconds=1.0, offline=2, sizes=[1, 2, 3],
    )  # fmt: skip


def test_prepared_requests_fit_one_request_and_serve_once(memory: Path) -> None:
    prepared_requests = PreparedRequests(memory)
    request = Generate(Input([3], []), 2)
    assert prepared_requests.take(SHARING, request) is None
    first, second, longer = prepared_request(), prepared_request(b"j" * 16), prepared_request(b"k" * 16, tokens=3)
    for one in (first, second, longer):
        prepared_requests.add(one)
    assert len(prepared_requests.all()) == 3
    for other in (Generate(Input([4], []), 2), Generate(Input([3], []), 1), Encode(Input([3], []), "hidden")):
        assert prepared_requests.take(SHARING, other) is None
    assert prepared_requests.take(b"t" * 16, request) is None
    assert [PreparedRequests(memory).take(SHARING, request) for _ in range(3)] == [first, second, None]
    assert prepared_requests.all() == [longer]
    (left,) = (path for path in memory.rglob("*") if path.is_file())
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    left.write_bytes(b"{}")
    with pytest.raises(PreprocessingError, match="cannot be read"):
        prepared_requests.take(SHARING, request)


def test_a_request_takes_the_plan_by_which_one_like_it_was_prepared(memory: Path) -> None:
    prepared_requests, request = PreparedRequests(memory), Generate(Input([3], []), 2, paced=True)
    assert prepared_requests.alike(SHARING, request) is None
    made = prepared_request()
    quick = msgspec.structs.replace(made.request, input=Input([3], [], quick=("norm",)))
    prepared_requests.add(msgspec.structs.replace(made, request=quick))
    found = prepared_requests.alike(SHARING, request)
    assert isinstance(found, Generate) and found.paced and found.input.quick == ("norm",)
    assert prepared_requests.alike(b"t" * 16, request) is None
    assert prepared_requests.alike(SHARING, Generate(Input([4], []), 2)) is None
