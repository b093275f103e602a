"""Parts of a model that do not fit together are an error that says whose, and never an answer."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from puma.errors import StoreError
from puma.party import fitting
from puma.party.fitting import common
from puma.store.models import DATA, MANIFEST, Manifest, layout, read_manifest, wire_bytes, write_manifest
from puma.store.uploads import uploads_folder
from puma.wire.parameters import CHECK, check_values
from tests.models import tiny
from tests.party.sessions import Sessions

CHANGE = Callable[[Path], None]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stores with a model of one layer, in its first sharing (below "old") and in its second."""
    folder = tmp_path_factory.mktemp("shared")
    model = tiny.llama(folder / "llama", num_hidden_layers=1)
    parties = Sessions(folder / "now")
    parties.share(model, "m")
    shutil.copytree(folder / "now", folder / "old")
    parties.share(model, "m")
    close(parties)
    return folder


def close(parties: Sessions) -> None:
    for library in parties.libraries:
        library.close()


def rewritten(folder: Path, rank: int, **changes: Any) -> None:
    """The manifest of a party with these changes, as if it had been written so."""
    model = folder / f"p{rank}/models/m"
    manifest = msgspec.structs.replace(read_manifest(model, "m"), **changes)
    (model / MANIFEST).unlink()
    write_manifest(model, manifest)


def flip_seed(rank: int, which: int) -> CHANGE:
    def change(folder: Path) -> None:
        seeds = read_manifest(folder / f"p{rank}/models/m", "m").seeds
        seeds[which] = bytes([seeds[which][0] ^ 1]) + seeds[which][1:]
        rewritten(folder, rank, seeds=seeds)

    return change


def flip_both_seeds(folder: Path) -> None:
    """At both who hold it, so that only the check vector can tell."""
    flip_seed(0, 1)(folder)
    flip_seed(2, 0)(folder)


def old_data(*ranks: int) -> CHANGE:
    """Data of the older sharing, under a manifest that says it is the present one."""

    def change(folder: Path) -> None:
        for rank in ranks:
            old = folder.parent / f"old/p{rank}/models/m"
            shutil.copy(old / DATA, folder / f"p{rank}/models/m" / DATA)
            rewritten(folder, rank, digests=read_manifest(old, "m").digests)

    return change


def one_weight(folder: Path) -> None:
    """One byte of one parameter, far from the check vector, with its digest."""
    manifest = read_manifest(folder / "p1/models/m", "m")
    path = folder / "p1/models/m" / DATA
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    words = data[: manifest.offsets[1]][: _size(manifest)]
    rewritten(folder, 1, digests=[hashlib.sha256(words).digest(), *manifest.digests[1:]])


def _size(manifest: Manifest) -> int:
    return wire_bytes(manifest.tensors[0])


UNFIT = {
    "a seed at P1": (flip_seed(1, 0), "P0 and P1 do not hold the same seed"),
    "a seed at P2": (flip_seed(2, 0), "P0 and P2 do not hold the same seed"),
    "P1's seed at P0": (flip_seed(0, 0), "P0 and P1 do not hold the same seed"),
    "P2's seed at P0": (flip_seed(0, 1), "P0 and P2 do not hold the same seed"),
    "a seed at both": (flip_both_seeds, "at P1 and P2 do not belong to its seeds"),
    "P1's data": (old_data(1), "P1 and P2 do not hold the same masked words"),
    "P2's data": (old_data(2), "P1 and P2 do not hold the same masked words"),
    "both's data": (old_data(1, 2), "at P1 and P2 do not belong to its seeds"),
    "one weight": (one_weight, "P1 and P2 do not hold the same masked words"),
}


@pytest.mark.parametrize("what", list(UNFIT))
def test_parts_that_do_not_fit_are_named(what: str, shared: Path) -> None:
    folder = shared / what.replace(" ", "-").replace("'", "")
    shutil.copytree(shared / "now", folder)
    change, why = UNFIT[what]
    change(folder)
    parties = Sessions(folder)
    with parties.session() as session, pytest.raises(StoreError, match=why) as refused:
        session.open("m")
    assert "puma store" in refused.value.hint and refused.value.exit_code == 6
    close(parties)


def test_what_fits_is_tested_once(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests: list[int] = []
    real = fitting._test
    monkeypatch.setattr(fitting, "_test", lambda rank, *rest: (tests.append(rank), real(rank, *rest)))
    shutil.copytree(shared / "now", shared / "again")
    parties = Sessions(shared / "again")
    for _ in range(2):
        with parties.session() as session:
            assert session.open("m")
            assert len([*session.continued([[1, 5]], 1)]) == 1
    assert sorted(tests) == [0, 1, 2]
    parties.libraries[1].tested.clear()  # as if P1 had been started anew
    with parties.session() as session:
        assert session.open("m")
    assert sorted(tests) == [0, 0, 1, 1, 2, 2]
    close(parties)


@pytest.mark.masks_again
def test_an_upload_that_does_not_fit_is_thrown_away(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came whole, so that going on with it would fail for ever; the next one begins anew and is served."""
    model, parties = shared / "llama", Sessions(shared / "fresh")
    with monkeypatch.context() as wrong:
        wrong.setattr("puma.party.fitting.check_values", lambda: check_values() + 1)
        with pytest.raises(StoreError, match="at P1 and P2 do not belong to its seeds"):
            parties.share(model, "m")
    assert [failure.kind for failure in parties.failures] == ["StoreError"] * 3
    assert not [path for rank in range(3) for path in uploads_folder(shared / f"fresh/p{rank}").iterdir()]
    parties.share(model, "m")
    with parties.session() as session:
        assert session.open("m")
    close(parties)


def test_a_part_that_cannot_be_used_is_named_by_all(shared: Path) -> None:
    shutil.copytree(shared / "now", shared / "damaged")
    data = shared / "damaged/p2/models/m" / DATA
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    parties = Sessions(shared / "damaged")
    with parties.session() as session, pytest.raises(StoreError, match=r"the data of model m in .*p2 is damaged"):
        session.open("m")
    assert {failure.kind for failure in parties.failures} == {"StoreError"}
    close(parties)


def test_what_one_pair_compares_tells_a_third_nothing(shared: Path) -> None:
    """Each digest is of what the two hold and the third lacks, and no two are of the same."""
    manifests = [read_manifest(shared / f"now/p{rank}/models/m", "m") for rank in range(3)]
    digests = {pair: common(manifests[pair[0]], *pair) for pair in ((0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1))}
    assert digests[0, 1] == digests[1, 0] and digests[0, 2] == digests[2, 0] and digests[1, 2] == digests[2, 1]
    assert len(set(digests.values())) == 3
    other = msgspec.structs.replace(manifests[1], seeds=[bytes(32)])
    assert common(other, 1, 0) != digests[1, 0] and common(other, 1, 2) == digests[1, 2]


def test_the_check_vector_lies_in_a_stream_and_a_place_of_its_own(shared: Path) -> None:
    manifest = read_manifest(shared / "now/p1/models/m", "m")
    names = [spec.name for spec in manifest.tensors]
    assert names.count(CHECK.name) == 1 == len([name for name in names if "check" in name])
    assert layout(manifest.tensors)[0] == manifest.offsets
