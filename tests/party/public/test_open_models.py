"""Models with public weights at parties that serve strangers: who brings them, who compares what, who is given what."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from puma.client.connect import ClusterSession, RemoteCluster
from puma.client.owner import Owner, card_of
from puma.client.public import fetched
from puma.client.public.content import Part, digested, parts, placed, weights_of
from puma.errors import ProtocolError, PumaError, StoreError
from puma.models import in_the_open
from puma.models.config import Config
from puma.reference.plain_model import PlainModel
from puma.store import uploads
from puma.store.given import Given
from puma.wire import messages as msg
from puma.wire.parameters import FACTORS, open_sharing, spec_bytes
from tests.models import tiny
from tests.models.unfolded.test_laid import halved
from tests.party.sessions import Sessions

PROMPT = "the cat sat"


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    folder = tiny.llama(tmp_path_factory.mktemp("open"), num_hidden_layers=1)
    return PlainModel(halved(folder, torch.bfloat16))


@pytest.fixture(scope="module")
def open_parts(clear: PlainModel) -> tuple[Config, list[Part]]:
    config = in_the_open(clear.config)
    found = parts(config, clear.params)
    return config, digested(found, lambda what, done, of: None)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory, clear: PlainModel, open_parts: object) -> Iterator[Sessions]:
    made = Sessions(tmp_path_factory.mktemp("parties"))
    with made.session("owner", "olga") as session:
        assert not open_up(session, clear, open_parts)  # type: ignore[arg-type]
    made.share(clear.checkpoint.folder, "secret")
    yield made


def open_up(
    session: ClusterSession, clear: PlainModel, open_parts: tuple[Config, list[Part]], name: str = "open",
    version: str = "1",
) -> bool:  # fmt: skip
    config, found = open_parts
    files = {label: read() for label, read in clear.files.items()}
    card = card_of(name, version, files, clear.eos, reveal_logits=True, weights=weights_of(config, found))
    return Owner(session, Path("unused")).open_up(config, found, card, files)


def test_a_client_looks_its_tokens_up_in_the_table_that_it_fetched_once(
    sessions: Sessions, clear: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = ClusterSession._numbers
    monkeypatch.setattr(ClusterSession, "_numbers", lambda self, spec: asked.append(spec.name) or real(self, spec))
    for _ in range(2):
        with sessions.session() as session:
            cluster = RemoteCluster(session, session.use("open"))
            assert cluster.generate(PROMPT, 2).token_ids == clear.greedy(clear.prompt_ids(PROMPT, 2), 2)
            assert session.card is not None and session.sharing == open_sharing(session.card)
    assert asked == ["model.embed_tokens.weight"]
    assert sessions.failures == [None] * 3


def test_every_party_keeps_what_it_computes_with_and_no_seed(sessions: Sessions, clear: PlainModel) -> None:
    """The numbers as they came, less than a third of the shares of the same model; the dealer nothing."""
    sizes = {}
    for name in ("open", "secret"):
        manifests = [library.store.manifest(name) for library in sessions.libraries]
        sizes[name] = [sum(map(spec_bytes, m.tensors)) if m.size else 0 for m in manifests]
    manifests = [library.store.manifest("open") for library in sessions.libraries]
    assert all(m.seeds == [] and m.public for m in manifests) and not manifests[0].digests
    assert manifests[1].digests == [spec.sha256 for spec in manifests[1].tensors]
    assert sizes["open"][0] == sizes["secret"][0] == 0 and 3 * sizes["open"][1] < 2 * sizes["secret"][1]


def test_what_is_served_already_is_not_sent_again(sessions: Sessions, clear: PlainModel, open_parts: object) -> None:
    with sessions.session("owner", "olga") as session:
        assert open_up(session, clear, open_parts)  # type: ignore[arg-type]
    with sessions.session("owner", "olga") as session:  # another card is another model
        assert not open_up(session, clear, open_parts, version="2")  # type: ignore[arg-type]
        assert open_up(session, clear, open_parts, version="2")  # type: ignore[arg-type]


def test_a_party_that_has_the_checkpoint_is_sent_no_weights(
    clear: PlainModel, open_parts: tuple[Config, list[Part]], tmp_path: Path
) -> None:
    """Those that have it, and another model besides; of the others one is sent all."""
    other = tiny.gpt2(tmp_path / "other")
    parties = Sessions(tmp_path / "parties")
    parties.libraries[1]._given = Given([tmp_path / "nowhere", other, clear.checkpoint.folder])
    sent: dict[int, int] = {1: 0, 2: 0}

    def counted(rank: int, link: Any) -> Any:
        real = link.recv

        def recv(size: int) -> Any:
            sent[rank] = sent.get(rank, 0) + size
            return real(size)

        link.recv = recv
        return link

    with parties.session("owner", "olga", counted) as session:
        assert not open_up(session, clear, open_parts)
    files = sum(len(read()) for read in clear.files.values())
    assert sent[1] == files < sent[2] == files + sum(spec_bytes(part.spec) for part in open_parts[1])
    with parties.session() as session:
        cluster = RemoteCluster(session, session.use("open"))
        assert cluster.generate(PROMPT, 1).token_ids == clear.greedy(clear.prompt_ids(PROMPT, 1), 1)


def test_a_checkpoint_that_was_changed_is_not_taken_for_the_one(
    clear: PlainModel, open_parts: tuple[Config, list[Part]], tmp_path: Path
) -> None:
    """What differs is sent, and what stands before it is not."""
    folder = tmp_path / "changed"
    shutil.copytree(clear.checkpoint.folder, folder)
    tiny.edit(folder, lambda state: state["model.layers.0.mlp.up_proj.weight"].mul_(2))
    parties = Sessions(tmp_path / "parties")
    parties.libraries[2]._given = Given([folder])
    with parties.session("owner", "olga") as session:
        assert not open_up(session, clear, open_parts)
    manifests = [parties.libraries[rank].store.manifest("open") for rank in (1, 2)]
    assert manifests[0].digests == manifests[1].digests


def test_other_numbers_than_the_digests_say_are_refused(
    sessions: Sessions, clear: PlainModel, open_parts: tuple[Config, list[Part]]
) -> None:
    """However they came about: nobody computes with weights that others do not have."""
    config, found = open_parts
    wrong = hashlib.sha256(b"others").digest()
    changed = [msgspec.structs.replace(found[0].spec, sha256=wrong), *(part.spec for part in found[1:])]
    told = [Part(spec, part.laid, part.factors) for spec, part in zip(changed, found, strict=True)]
    with (
        sessions.session("owner", "olga") as session,
        pytest.raises(PumaError, match=r"not the one that its digest says|does not have its checksum"),
    ):
        open_up(session, clear, (config, told), "other")
    assert not any(library.store.holds("other") for library in sessions.libraries)


def test_parties_that_hold_different_weights_serve_neither(sessions: Sessions) -> None:
    """What each has compared is a part of what the model is called by, and that they compare with each other."""
    with sessions.session() as session, pytest.MonkeyPatch.context() as patch:
        model = sessions.libraries[2].open("open")
        assert model is not None
        patch.setattr(model, "manifest", msgspec.structs.replace(model.manifest, sharing=b"another one".ljust(16)))
        assert not session.open("open")


def test_an_owner_from_afar_names_no_files_of_this_machine(
    sessions: Sessions, clear: PlainModel, open_parts: tuple[Config, list[Part]], tmp_path: Path
) -> None:
    config, found = open_parts
    card = card_of("local", "1", {}, weights=weights_of(config, found))
    with sessions.session("owner", "olga") as session:
        owner = Owner(session, tmp_path)
        with pytest.raises(ProtocolError, match="names files of this party's machine"):
            owner.open_up(config, found, card, places=placed(found, tmp_path))
    assert not any(library.store.holds("local") for library in sessions.libraries)


def test_clients_fetch_the_table_and_nothing_else(sessions: Sessions) -> None:
    """Not another parameter, nor one of a model whose weights are secret."""
    for model, name in (
        ("open", "model.norm.weight"),
        ("open", "lm_head.weight"),
        ("secret", "model.embed_tokens.weight"),
    ):
        with sessions.session() as session:
            session.use(model)
            assert (session.table is None) is (model == "secret")
            with pytest.raises(StoreError, match="has no file"):
                session._numbers(msg.TensorSpec(name, (1,), 48, 18, "i32"))


def test_a_table_that_is_not_the_cards_is_refused(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    with sessions.session() as session:
        session.use("open")
        config, card, sharing = session.served, session.card, session.sharing
    assert card is not None and card.weights is not None and card.weights.table is not None
    monkeypatch.setattr(fetched, "folder", lambda: Path("/nowhere"))
    with pytest.raises(ProtocolError, match=r"sent another model\.embed_tokens"):
        fetched.fetched(config, card, sharing, lambda spec: bytes(spec_bytes(spec)))
    table = msgspec.structs.replace(card.weights.table, shape=(3, 3))
    for other in (None, msgspec.structs.replace(card.weights, table=table)):
        said = msgspec.structs.replace(card, weights=other)
        with pytest.raises(ProtocolError, match="card"):
            fetched.fetched(config, said, open_sharing(said), lambda spec: b"")
    with pytest.raises(ProtocolError, match="does not say which they are"):
        fetched.fetched(config, card, b"another", lambda spec: b"")


def test_factors_that_belong_to_nothing_are_refused(open_parts: tuple[Config, list[Part]]) -> None:
    config, found = open_parts
    specs = [part.spec for part in found]
    stray = msg.TensorSpec(f"model.norm.weight{FACTORS}", (24,), 32, 0, "f32", bytes(32))
    for wrong in ([*specs, stray], [*specs, specs[0]], [msgspec.structs.replace(specs[0], kind="u4"), *specs[1:]]):
        offer = msg.Offer(msg.Card("m", weights=msg.OpenWeights(bytes(32))), config, wrong, [], False, b"1" * 16)
        with pytest.raises(ProtocolError, match="not those of the model"):
            uploads.check(offer, 1)
