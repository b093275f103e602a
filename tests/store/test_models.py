"""Models on disk: whole or not there at all, for their owner only, and in memory only while they are read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from puma.errors import ProtocolError, StoreError
from puma.models.config import Llama
from puma.store.library import Library
from puma.store.models import PAGE, Store, content_name, read_manifest, write_manifest
from puma.store.uploads import ResumableUpload
from puma.wire.messages import Card, Offer, TensorSpec

CONFIG = Llama(vocab_size=8, hidden_size=8, intermediate_size=8, layers=1, heads=2)
SPECS = [TensorSpec("a", (3, 5), 48, 18), TensorSpec("b", (1000,), 48, 18), TensorSpec("c", (1,), 34, 0)]
DATA = [bytes(range(90)), bytes(6000), b"12345"]


def offer(name: str = "m", specs: list[TensorSpec] = SPECS, seeds: int = 1) -> Offer:
    return Offer(Card(name), CONFIG, specs, [b"x" * 32] * seeds, True, b"s" * 16)


def send(upload: ResumableUpload, data: list[bytes] = DATA) -> None:
    for piece in data:
        upload.write(piece)
        upload.checked(None)


def store_in(store: Store, what: Offer, data: list[bytes] = DATA) -> None:
    upload = ResumableUpload(store, what)
    if store.rank:
        send(upload, data)
    upload.complete()
    upload.publish()
    upload.close()


def stored(root: Path, name: str = "m", rank: int = 1) -> Store:
    store = Store(root, rank)
    store_in(store, offer(name, seeds=1 if rank else 2))
    return store


def test_a_name_tells_nothing_without_the_owners_key() -> None:
    """Two owners of the same weights give them different names; one owner always the same, until a weight changes."""
    params = {"a": torch.ones(3, 5)}
    names = [content_name(key * 32, "my model", CONFIG, params) for key in (b"1", b"1", b"2")]
    assert names[0] == names[1] != names[2] and names[0].startswith("my-model-")
    assert content_name(b"1" * 32, "my model", CONFIG, {"a": torch.zeros(3, 5)}) != names[0]


def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    stored(tmp_path / "p1")
    store = Store(tmp_path / "p1", 1)
    assert store.names() == ["m"] and store.sharing("m") == b"s" * 16 and store.sharing("n") == b""
    model = store.open("m")
    assert (model.manifest.config, model.manifest.seeds) == (CONFIG, [b"x" * 32])
    for spec, piece in zip(SPECS, DATA, strict=True):
        packed = model.packed(spec.name)
        assert packed is not None and bytes(packed.numpy()) == piece


def test_the_dealer_keeps_seeds_only(tmp_path: Path) -> None:
    model = stored(tmp_path / "p0", rank=0).open("m")
    assert model.packed("a") is None and not (tmp_path / "p0/models/m/data").exists()
    model.touch("a")


@pytest.mark.parametrize(("kept", "rank"), [(0, 1), (0, 2), (1, 0), (2, 0)])
def test_a_model_is_what_its_party_must_hold(tmp_path: Path, kept: int, rank: int) -> None:
    """What another party holds of it would make a wrong answer, or none that could be explained."""
    stored(tmp_path / "p", rank=kept)
    with pytest.raises(StoreError, match=f"is not P{rank}'s part of it") as refused:
        Store(tmp_path / "p", rank).open("m")
    assert "puma store" in refused.value.hint


# The dealer holds seeds alone.
LACKING = [(rank, lacks) for rank in (0, 1) for lacks in ("a seed", "a long enough seed")] + [
    (1, "data"),
    (1, "a digest"),
]


@pytest.mark.parametrize(("rank", "lacks"), LACKING)
def test_a_part_of_a_part_is_refused(tmp_path: Path, rank: int, lacks: str) -> None:
    folder = stored(tmp_path / "p", rank=rank).path("m")
    manifest = read_manifest(folder, "m")
    fewer: dict[str, dict[str, Any]] = {
        "a seed": {"seeds": manifest.seeds[1:]}, "data": {"offsets": [], "digests": [], "size": 0},
        "a digest": {"digests": manifest.digests[1:]}, "a long enough seed": {"seeds": [b"x" * 31] * (2 - rank)},
    }  # fmt: skip
    (folder / "manifest.json").unlink()
    write_manifest(folder, msgspec.structs.replace(manifest, **fewer[lacks]))
    with pytest.raises(StoreError, match="part of it"):
        Store(tmp_path / "p", rank).open("m")


def test_another_versions_model_is_named(tmp_path: Path) -> None:
    folder = stored(tmp_path / "p1").path("m")
    manifest = read_manifest(folder, "m")
    (folder / "manifest.json").unlink()
    write_manifest(folder, msgspec.structs.replace(manifest, version=1))
    with pytest.raises(StoreError, match="stored by another version of puma"):
        Store(tmp_path / "p1", 1).open("m")


def test_nobody_else_may_look(tmp_path: Path) -> None:
    stored(tmp_path / "p1")
    for path in [tmp_path / "p1", *(tmp_path / "p1").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    (tmp_path / "p1").chmod(0o755)
    with pytest.raises(StoreError, match="open to other users") as refused:
        Store(tmp_path / "p1", 1)
    assert "chmod 700" in refused.value.hint
    (tmp_path / "link").symlink_to(tmp_path / "p1/models")
    with pytest.raises(StoreError, match="is no folder"):
        Store(tmp_path / "link", 1)


def test_what_reads_the_words_cannot_change_the_file(tmp_path: Path) -> None:
    store = stored(tmp_path / "p1")
    words = store.open("m").packed("a")
    assert words is not None
    words.fill_(0)
    again = store.open("m").packed("a")
    assert again is not None and bytes(again.numpy()) == DATA[0]


@pytest.mark.parametrize("name", ["", "..", "../m", "a/b", ".hidden", "a" * 101, "m\n", "-m"])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    store = stored(tmp_path / "p1")
    for use in (store.open, store.delete, store.holds, lambda n: ResumableUpload(store, offer(n))):
        with pytest.raises(StoreError, match="is no name"):
            use(name)


def test_unknown_models_are_named(tmp_path: Path) -> None:
    store = stored(tmp_path / "p1")
    store.delete("m")
    assert store.names() == []
    for use in (store.open, store.delete):
        with pytest.raises(StoreError, match="there is no model m"):
            use("m")


def test_a_model_is_there_only_when_complete(tmp_path: Path) -> None:
    store = Store(tmp_path / "p1", 1)
    upload = ResumableUpload(store, offer())
    upload.write(DATA[0][:7])
    upload.write(DATA[0][7:])
    upload.checked(None)
    with pytest.raises(ProtocolError, match="only 1 of 3 parameters"):
        upload.complete()
    assert store.names() == [] and not store.holds("m")
    send(upload, DATA[1:])
    upload.complete()
    assert store.names() == []
    assert bytes(upload.publish().packed("a").numpy()) == DATA[0]  # type: ignore[union-attr]
    upload.close()
    assert store.names() == ["m"] and os.listdir(tmp_path / "p1/models") == ["m"]


def test_a_parameter_has_its_size(tmp_path: Path) -> None:
    upload = ResumableUpload(Store(tmp_path / "p1", 1), offer())
    upload.write(DATA[0][:80])
    with pytest.raises(ProtocolError, match="parameter a has too many bytes"):
        upload.write(bytes(11))
    with pytest.raises(ProtocolError, match="parameter a does not have its checksum"):
        upload.checked(None)
    upload.close()


def test_a_new_sharing_replaces_the_old_one_only_when_complete(tmp_path: Path) -> None:
    store = stored(tmp_path / "p1")
    other = msgspec.structs.replace(offer(), sharing=b"t" * 16)
    upload = ResumableUpload(store, other)
    upload.write(bytes(90))
    upload.close()
    old = store.open("m")
    store_in(store, other, [bytes(len(piece)) for piece in DATA])
    before, after = old.packed("a"), store.open("m").packed("a")
    assert before is not None and after is not None
    assert bytes(before.numpy()) == DATA[0] and not after.any()
    assert os.listdir(tmp_path / "p1/models") == ["m"]


def test_what_cannot_be_gone_on_with_is_cleaned_up(tmp_path: Path) -> None:
    library = Library(tmp_path / "p1", 1)
    upload = ResumableUpload(library.store, msgspec.structs.replace(offer(), checksums=False))
    upload.write(DATA[0])
    assert os.listdir(tmp_path / "p1/uploads") == ["m"]
    upload.close()
    assert not os.listdir(tmp_path / "p1/uploads")
    dead = ResumableUpload(library.store, msgspec.structs.replace(offer(), checksums=False))
    os.close(dead._folder)  # as the system does for a process that has died
    library.close()
    Library(tmp_path / "p1", 1, resting=0.0).close()
    assert not os.listdir(tmp_path / "p1/uploads")


@pytest.mark.parametrize("file", ["data", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "gone"])
def test_damage_is_noticed(tmp_path: Path, file: str, damage: str) -> None:
    store = stored(tmp_path / "p1")
    path = tmp_path / "p1/models/m" / file
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes({"flip": bytes(content), "cut": content[:-1], "longer": path.read_bytes() + b"\0"}[damage])
    with pytest.raises(StoreError, match="of model m") as found:
        store.open("m")
    assert found.value.hint and found.value.exit_code == 6


def test_a_manifest_that_was_edited_is_refused(tmp_path: Path) -> None:
    """What still reads as a manifest, too: another policy, or another place for a parameter's masks."""
    store = stored(tmp_path / "p1")
    path = store.path("m") / "manifest.json"
    text = path.read_bytes()
    changed = text.replace(b'"keep_masks":true', b'"keep_masks":false')
    assert changed != text
    path.write_bytes(changed)
    with pytest.raises(StoreError, match="damaged"):
        store.open("m")


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync"])
def test_a_full_disk_leaves_no_trace(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "p1", 1)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StoreError, match=r"no room for the model m of 16384 bytes .*No space left") as found:
        store_in(store, offer())
    assert "free some" in found.value.hint
    assert store.names() == [] and not os.listdir(tmp_path / "p1/models") and not os.listdir(tmp_path / "p1/uploads")


def resident(path: Path) -> int:
    """Bytes of a mapped file that this process has in memory."""
    smaps = Path("/proc/self/smaps").read_text()
    found = smaps[smaps.index(str(path)) :]
    return int(found[found.index("Rss:") :].split()[1]) * 1024


def test_what_was_read_is_let_go(tmp_path: Path) -> None:
    megabyte = 256 * PAGE
    specs = [TensorSpec(f"w{i}", (megabyte,), 8, 0) for i in range(8)]
    store = Store(tmp_path / "p1", 1, resident=2 * megabyte)
    store_in(store, offer(specs=specs), [bytes([i]) * megabyte for i in range(8)])
    model = store.open("m")
    data = tmp_path / "p1/models/m/data"
    for turn in range(2):
        for i in range(8):
            model.touch(f"w{i}")
            words = model.packed(f"w{i}")
            assert words is not None and int(words.to(torch.int64).sum()) == i * megabyte
            assert resident(data) <= 2 * megabyte, turn
    free = Store(tmp_path / "p1", 1).open("m")
    for i in range(8):
        free.touch(f"w{i}")
        words = free.packed(f"w{i}")
        assert words is not None and int(words[0]) == i
