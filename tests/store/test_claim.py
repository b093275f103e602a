"""A store is one party's, and one process's at a time; whoever else comes is told why not."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from puma.errors import StoreError
from puma.local import inventory
from puma.store.claim import FILE, Claim, Identity, identity, locked
from puma.store.library import Library

MINE = Identity(1, "sha256:one")


def test_first_use_writes_whose_it_is(tmp_path: Path) -> None:
    root = tmp_path / "store"
    Claim(root, MINE).close()
    assert identity(root) == MINE and stat.S_IMODE((root / FILE).stat().st_mode) == 0o600
    Claim(root, MINE).close()
    assert identity(tmp_path) is None


@pytest.mark.parametrize(
    ("other", "why"), [(Identity(2, "sha256:one"), "is P1's, and this is P2"), (Identity(1, "sha256:two"), "that of")]
)
def test_another_partys_store_is_refused(tmp_path: Path, other: Identity, why: str) -> None:
    Claim(tmp_path / "store", MINE).close()
    with pytest.raises(StoreError, match=why) as refused:
        Claim(tmp_path / "store", other)
    assert "--store" in refused.value.hint and refused.value.exit_code == 6
    Claim(tmp_path / "store", MINE).close()  # whoever was refused holds no lock


def test_a_replaced_key_is_written_by_the_operator(tmp_path: Path) -> None:
    Claim(tmp_path / "store", MINE).close()
    with pytest.raises(StoreError) as refused:
        Claim(tmp_path / "store", Identity(1, "sha256:new"))
    assert str(tmp_path / "store" / FILE) in refused.value.hint
    file = tmp_path / "store" / FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"party": "sha256:new"}))
    Claim(tmp_path / "store", Identity(1, "sha256:new")).close()


@pytest.mark.parametrize("held", ["models", "uploads"])
def test_an_incomplete_store_is_refused(tmp_path: Path, held: str) -> None:
    (tmp_path / "store" / held / "m").mkdir(parents=True)
    (tmp_path / "store").chmod(0o700)
    with pytest.raises(StoreError, match="does not say whose it is"):
        Claim(tmp_path / "store", MINE)


@pytest.mark.parametrize("content", [b"", b"{", b'{"rank": "one"}', b"\xff", b'{"rank": 1, "version": 2}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    Claim(tmp_path / "store", MINE).close()
    (tmp_path / "store" / FILE).write_bytes(content)
    with pytest.raises(StoreError, match=r"party\.json.* cannot be read|another version"):
        Claim(tmp_path / "store", MINE)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    root = tmp_path / "store"
    claim = Claim(root, MINE)
    for use in (lambda: Claim(root, MINE), lambda: Library(root, 1, "sha256:one"), lambda: locked(root).__enter__()):
        with pytest.raises(StoreError, match="in use by another process") as refused:
            use()
        assert "is this party already running?" in refused.value.hint
    code = "import sys; from pathlib import Path; from puma.store.claim import Claim, Identity\n"
    code += "Claim(Path(sys.argv[1]), Identity(1, 'sha256:one'))"
    words = [sys.executable, "-c", code, str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "in use by another process" in done.stderr
    claim.close()
    assert subprocess.run(words, check=False).returncode == 0
    Claim(root, MINE).close()


def test_an_operator_looks_at_one_partys_store_and_empties_it(tmp_path: Path) -> None:
    root = tmp_path / "store"
    library = Library(root, 2, "sha256:two")
    for name in ("m", "n"):
        (root / "models" / name).mkdir(mode=0o700)
        (root / "models" / name / "manifest.json").write_bytes(b"damaged")
    (root / "uploads" / "o").mkdir(mode=0o700)
    assert inventory.look(root) == inventory.Inventory(["P2"], {"m": [7], "n": [7]}, 0, [0])
    with pytest.raises(StoreError, match="in use by another process"):
        inventory.forget(root, models=True)
    library.close()
    with pytest.raises(StoreError, match="no model x"):
        inventory.forget(root, models=True, only="x")
    inventory.forget(root, models=True, only="m")
    assert inventory.look(root).models == {"n": [7]} and os.listdir(root / "uploads") == ["o"]
    inventory.forget(root, models=True)
    assert not os.listdir(root / "models") and not os.listdir(root / "uploads")
    Library(root, 0).close()  # an empty store is whoever's comes next
