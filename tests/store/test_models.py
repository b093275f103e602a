"""Models on disk: whole or not there at all, for their owner only, and in memory only while they are read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from puma.errors import StoreError
from puma.models.config import Llama
from puma.store import folders
from puma.store.models import PAGE, Manifest, Store, content_name
from puma.wire.messages import TensorSpec

CONFIG = Llama(vocab_size=8, hidden_size=8, intermediate_size=8, layers=1, heads=2)
SPECS = [TensorSpec("a", (3, 5), 48, 18), TensorSpec("b", (1000,), 48, 18), TensorSpec("c", (1,), 34, 0)]
DATA = [bytes(range(90)), bytes(6000), b"12345"]


def manifest(name: str = "m", specs: list[TensorSpec] = SPECS) -> Manifest:
    return Manifest(name=name, sharing=b"s" * 16, config=CONFIG, tensors=specs, seeds=[b"x" * 32], keep_masks=True)


def stored(root: Path, name: str = "m") -> Store:
    store = Store(root)
    upload = store.create(manifest(name), data=True)
    for piece in DATA:
        upload.write(piece)
    upload.finish()
    return store


def test_a_name_tells_nothing_without_the_owners_key() -> None:
    """Two owners of the same weights give them different names; one owner always the same, until a weight changes."""
    params = {"a": torch.ones(3, 5)}
    names = [content_name(key * 32, "my model", CONFIG, params) for key in (b"1", b"1", b"2")]
    assert names[0] == names[1] != names[2] and names[0].startswith("my-model-")
    assert content_name(b"1" * 32, "my model", CONFIG, {"a": torch.zeros(3, 5)}) != names[0]


def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    stored(tmp_path / "p1")
    store = Store(tmp_path / "p1")
    assert store.names() == ["m"] and store.sharing("m") == b"s" * 16 and store.sharing("n") == b""
    model = store.open("m")
    assert (model.manifest.config, model.manifest.seeds) == (CONFIG, [b"x" * 32])
    for spec, piece in zip(SPECS, DATA, strict=True):
        packed = model.packed(spec.name)
        assert packed is not None and bytes(packed.numpy()) == piece


def test_the_dealer_keeps_seeds_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "p0")
    store.create(manifest(), data=False).finish()
    model = store.open("m")
    assert model.packed("a") is None and not (tmp_path / "p0/models/m/data").exists()
    model.touch("a")


def test_nobody_else_may_look(tmp_path: Path) -> None:
    stored(tmp_path / "p1")
    for path in [tmp_path / "p1", *(tmp_path / "p1").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    (tmp_path / "p1").chmod(0o755)
    with pytest.raises(StoreError, match="open to other users") as refused:
        Store(tmp_path / "p1")
    assert "chmod 700" in refused.value.hint
    (tmp_path / "link").symlink_to(tmp_path / "p1/models")
    with pytest.raises(StoreError, match="is no folder"):
        Store(tmp_path / "link")


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
    for use in (store.open, store.delete, store.holds, lambda n: store.create(manifest(n), data=True)):
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
    store = Store(tmp_path / "p1")
    upload = store.create(manifest(), data=True)
    upload.write(DATA[0][:7])
    upload.write(DATA[0][7:])
    with pytest.raises(StoreError, match="only 1 parameters"):
        upload.finish()
    assert store.names() == [] and not store.holds("m")
    Store(tmp_path / "p1")  # leaves an upload alone whose writer lives
    upload.write(DATA[1])
    upload.write(DATA[2])
    assert bytes(upload.finish().packed("a").numpy()) == DATA[0]  # type: ignore[union-attr]
    assert store.names() == ["m"]
    assert os.listdir(tmp_path / "p1/models") == ["m"]


def test_a_parameter_has_its_size(tmp_path: Path) -> None:
    upload = Store(tmp_path / "p1").create(manifest(), data=True)
    upload.write(DATA[0][:80])
    with pytest.raises(StoreError, match="parameter a has 1 bytes too many"):
        upload.write(bytes(11))
    upload.discard()


def test_a_new_sharing_replaces_the_old_one_only_when_complete(tmp_path: Path) -> None:
    store = stored(tmp_path / "p1")
    upload = store.create(manifest(), data=True)
    upload.write(bytes(90))
    upload.discard()
    old = store.open("m")
    upload = store.create(manifest(), data=True)
    for piece in DATA:
        upload.write(bytes(len(piece)))
    new = upload.finish()
    before, after = old.packed("a"), new.packed("a")
    assert before is not None and after is not None
    assert bytes(before.numpy()) == DATA[0] and not after.any()
    assert os.listdir(tmp_path / "p1/models") == ["m"]


def test_what_a_dead_writer_left_is_cleaned_up(tmp_path: Path) -> None:
    upload = Store(tmp_path / "p1").create(manifest(), data=True)
    upload.write(DATA[0])
    upload._close()
    upload._incoming.close()  # as the system does for a process that has died
    (left,) = (tmp_path / "p1/models").iterdir()
    assert left.name.startswith(folders.INCOMING)
    assert Store(tmp_path / "p1").names() == []
    assert not left.exists()


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


@pytest.mark.parametrize("call", ["posix_fallocate", "write", "fsync"])
def test_a_full_disk_leaves_no_trace(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "p1")

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StoreError, match=r"no room for the model m of 16384 bytes .*No space left") as found:
        upload = store.create(manifest(), data=True)
        try:
            for piece in DATA:
                upload.write(piece)
            upload.finish()
        finally:
            upload.discard()
    assert "free some" in found.value.hint
    assert store.names() == [] and not os.listdir(tmp_path / "p1/models")


def resident(path: Path) -> int:
    """Bytes of a mapped file that this process has in memory."""
    smaps = Path("/proc/self/smaps").read_text()
    found = smaps[smaps.index(str(path)) :]
    return int(found[found.index("Rss:") :].split()[1]) * 1024


def test_what_was_read_is_let_go(tmp_path: Path) -> None:
    megabyte = 256 * PAGE
    specs = [TensorSpec(f"w{i}", (megabyte,), 8, 0) for i in range(8)]
    store = Store(tmp_path / "p1", resident=2 * megabyte)
    upload = store.create(manifest(specs=specs), data=True)
    for i in range(8):
        upload.write(bytes([i]) * megabyte)
    model = upload.finish()
    data = tmp_path / "p1/models/m/data"
    for turn in range(2):
        for i in range(8):
            model.touch(f"w{i}")
            words = model.packed(f"w{i}")
            assert words is not None and int(words.to(torch.int64).sum()) == i * megabyte
            assert resident(data) <= 2 * megabyte, turn
    free = Store(tmp_path / "p1").open("m")
    for i in range(8):
        free.touch(f"w{i}")
        words = free.packed(f"w{i}")
        assert words is not None and int(words[0]) == i
