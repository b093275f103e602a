"""An upload may be cut off anywhere: what is taken up again is whole, and what is served is complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from puma.client.owner import card_of
from puma.errors import AdmissionError, ProtocolError, StoreError
from puma.models.config import Llama
from puma.store import folders
from puma.store.library import Library
from puma.store.models import wire_bytes
from puma.store.uploads import ResumableUpload, check, forget_old
from puma.wire import messages as msg
from puma.wire.parameters import offered_specs

CONFIG = Llama(vocab_size=8, hidden_size=8, intermediate_size=8, layers=1, heads=2)
FILES = {"tokenizer.json": b"{}"}
OFFER = msg.Offer(card_of("m", "1", FILES), CONFIG, offered_specs(CONFIG), [bytes(32)], True, b"s" * 16)
OTHER_SHAPE = next(spec.name for spec in OFFER.tensors if spec.shape != OFFER.tensors[0].shape)
WORDS = [os.urandom(wire_bytes(spec)) for spec in OFFER.tensors]


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = Library(tmp_path / "store", 1)
    yield made
    made.close()


def send(upload: ResumableUpload, until: int | None = None) -> None:
    for file in OFFER.card.files:
        upload.file(file, FILES[file.name])
    for words in WORDS[upload.held : until]:
        half = len(words) // 2
        upload.write(words[:half])
        upload.write(words[half:])
        upload.checked(hashlib.sha256(words).digest())


def test_all_of_it_arrives(library: Library) -> None:
    upload = library.receive(OFFER)
    assert (upload.held, upload.published) == (0, False)
    send(upload)
    upload.complete()
    assert library.open("m") is None and library.models() == []
    library.publish(upload)
    upload.close()
    model = library.open("m")
    assert model is not None and model is library.open("m")
    for spec, words in zip(OFFER.tensors, WORDS, strict=True):
        packed = model.packed(spec.name)
        assert packed is not None and packed.numpy().tobytes() == words
    assert library.file(model, "tokenizer.json") == b"{}"
    with pytest.raises(StoreError, match="has no file"):
        library.file(model, "manifest.json")
    assert {p.name for p in library.store.path("m").iterdir()} == {"data", "manifest.json", "files"}
    again = library.receive(OFFER)
    assert again.published and again.held == len(WORDS)


@pytest.mark.parametrize("damage", [None, "half a parameter", "a byte", "the journal", "another sharing"])
def test_a_cut_upload_goes_on_behind_what_is_whole(library: Library, damage: str | None) -> None:
    upload = library.receive(OFFER)
    send(upload, 5)
    if damage == "half a parameter":
        upload.write(WORDS[5][:-1])
    upload.close()
    folder = library.store.root / "uploads" / "m"
    offer, held = OFFER, 5
    if damage == "a byte":
        data = bytearray((folder / "data").read_bytes())
        data[upload._offsets[2]] ^= 1
        (folder / "data").write_bytes(data)
        held = 2
    elif damage == "the journal":
        os.truncate(folder / "journal", 70)
        held = 2
    elif damage == "another sharing":
        offer, held = msgspec.structs.replace(OFFER, sharing=b"t" * 16), 0
    again = library.receive(offer)
    assert again.held == held
    send(again)
    again.complete()
    library.publish(again)
    again.close()
    model = library.open("m")
    assert model is not None and model.manifest.sharing == offer.sharing


@pytest.mark.parametrize("published", [False, True])
def test_a_model_is_its_owners_alone(library: Library, published: bool) -> None:
    """Whether it is served or still on its way: another key neither replaces nor deletes it, nor goes on."""
    upload = library.receive(OFFER, "puma1:olga")
    send(upload, None if published else 3)
    if published:
        upload.complete()
        library.publish(upload)
    upload.close()
    for offer in (OFFER, msgspec.structs.replace(OFFER, sharing=b"t" * 16)):
        with pytest.raises(AdmissionError, match="another owner's"):
            library.receive(offer, "puma1:otto")
    with pytest.raises(AdmissionError, match="another owner's"):
        library.delete("m", "puma1:otto")
    assert library.receive(OFFER, "puma1:olga").held == (len(WORDS) if published else 3)


def test_nothing_is_published_that_is_not_complete(library: Library) -> None:
    upload = library.receive(OFFER)
    with pytest.raises(ProtocolError, match="not arrived"):
        library.publish(upload)
    send(upload, 3)
    with pytest.raises(ProtocolError, match=f"only 3 of {len(WORDS)}"):
        upload.complete()
    upload.write(WORDS[3])
    with pytest.raises(ProtocolError, match="does not have its checksum"):
        upload.checked(bytes(32))
    with pytest.raises(ProtocolError, match="being uploaded already"):
        library.receive(OFFER)
    upload.close()
    library.delete("m")
    assert not list((library.store.root / "uploads").iterdir())
    with pytest.raises(StoreError, match="no model m"):
        library.delete("m")


def test_offers_that_are_no_models_are_refused() -> None:
    file = msg.File("../x", 1, bytes(32))
    wrong = [
        msgspec.structs.replace(OFFER, tensors=OFFER.tensors[1:]),
        msgspec.structs.replace(OFFER, tensors=[*OFFER.tensors, OFFER.tensors[0]]),
        msgspec.structs.replace(OFFER, seeds=[b"short"]),
        msgspec.structs.replace(OFFER, card=msg.Card("../m")),
        msgspec.structs.replace(OFFER, card=msg.Card("m", files=[file])),
        msgspec.structs.replace(OFFER, tensors=OFFER.tensors[1:], alias={OFFER.tensors[0].name: "nothing"}),
        msgspec.structs.replace(OFFER, tensors=OFFER.tensors[1:], alias={OFFER.tensors[0].name: OTHER_SHAPE}),
        msgspec.structs.replace(OFFER, card=msg.Card("m", files=[msg.File("x", 1 << 39, bytes(32))])),
    ]
    for offer in wrong:
        with pytest.raises((ProtocolError, StoreError)):
            check(offer, 1)
    check(OFFER, 1)
    with pytest.raises(ProtocolError, match="seeds"):
        check(OFFER, 0)


@pytest.mark.parametrize("stage", ["begun", "published"])
def test_a_model_belongs_to_the_key_that_brought_it(library: Library, stage: str) -> None:
    upload = library.receive(OFFER, "sha256:olga")
    if stage == "published":
        send(upload)
        upload.complete()
        library.publish(upload)
    else:
        send(upload, 3)
    upload.close()
    new = msgspec.structs.replace(OFFER, sharing=b"t" * 16)
    for other in ("sha256:oscar", ""):
        for change in (lambda o=other: library.receive(new, o), lambda o=other: library.delete("m", o)):
            with pytest.raises(AdmissionError, match="the model m is another owner's") as refused:
                change()
            assert "puma store" in refused.value.hint
    again = library.receive(OFFER, "sha256:olga")
    assert again.held == (3 if stage == "begun" else len(WORDS)), "nobody has touched it"
    again.close()
    replaced = library.receive(new, "sha256:olga")
    send(replaced)
    replaced.complete()
    library.publish(replaced)
    replaced.close()
    model = library.open("m")
    assert model is not None and model.manifest.owner == "sha256:olga" and model.manifest.sharing == new.sharing
    library.delete("m", "sha256:olga")
    library.receive(new, "sha256:oscar").close()


def test_of_two_owners_at_once_the_first_keeps_the_name(library: Library) -> None:
    """Whoever is ready first has the model, and the other one's does not take its place."""
    slow = library.receive(OFFER, "sha256:oscar")
    send(slow)
    slow.complete()
    folders.remove(library.store.root / "uploads" / "m")
    slow.close()
    quick = library.receive(OFFER, "sha256:olga")
    send(quick)
    quick.complete()
    library.publish(quick)
    quick.close()
    with pytest.raises(AdmissionError, match="another owner's"):
        library.publish(slow)
    model = library.open("m")
    assert model is not None and model.manifest.owner == "sha256:olga"


def test_uploads_that_nobody_goes_on_with_are_forgotten(library: Library) -> None:
    library.receive(OFFER).close()
    assert forget_old(library.store.root) == []
    assert forget_old(library.store.root, -1.0) == ["m"]
