"""A model that is replaced under its name is another one to the client, whoever replaced it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from puma.client.owner import Owner, listed
from puma.errors import UsageError
from puma.store.models import Model, commitment
from puma.wire import receipts
from tests.models import tiny
from tests.party.sessions import Sessions


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    yield Sessions(tmp_path_factory.mktemp("parties") / "parties")


def held(parties: Sessions, name: str) -> list[receipts.Commitment]:
    found: list[Model | None] = [library.open(name) for library in parties.libraries]
    return [commitment(model.manifest, rank) for rank, model in enumerate(found) if model is not None]


@pytest.mark.masks_again
def test_a_model_that_is_shared_anew_is_refused_until_it_is_accepted(parties: Sessions, tmp_path: Path) -> None:
    folder, record = tiny.llama(tmp_path / "llama", num_hidden_layers=1), tmp_path / "state" / "seen.json"
    parties.share(folder, "llama")
    first = held(parties, "llama")
    with parties.session() as session:
        session.use("llama", record=record)
        assert session.seen == "new" and session.commitment == receipts.joined(first)
        list(session.continued([[1, 5]], 1))
        assert session.receipt is not None and session.commitment is not None
        assert session.receipt.commitment == receipts.commitment_digest(session.commitment)
        (shown,) = listed(session)
        assert shown.commitment == session.commitment
    with parties.session() as session:
        session.use("llama", record=record)
        assert session.seen == "same"
    with parties.session("owner", "olga") as session:
        Owner(session).delete("llama")
    parties.share(folder, "llama")  # the very same weights, under other masks
    assert all(one != two for one, two in zip(first, held(parties, "llama"), strict=True))
    with parties.session() as session:
        with pytest.raises(UsageError, match="its weights were shared anew") as failure:
            session.use("llama", record=record)
        assert "puma models show" in failure.value.hint and "--accept-changes" in failure.value.hint
    with parties.session() as session:
        session.use("llama", record=record, accept_changes=True)
        assert session.seen == "changed"


def test_one_word_or_one_seed_makes_another_commitment(parties: Sessions, tmp_path: Path) -> None:
    parties.share(tiny.bert(tmp_path / "bert", num_hidden_layers=1), "bert")
    before = held(parties, "bert")
    for rank, library in enumerate(parties.libraries):
        model = library.open("bert")
        assert model is not None
        manifest = model.manifest
        others = [msgspec.structs.replace(manifest, seeds=[b"x" * 32, *manifest.seeds[1:]])]
        if rank:
            others.append(msgspec.structs.replace(manifest, digests=[b"x" * 32, *manifest.digests[1:]]))
            others.append(msgspec.structs.replace(manifest, alias={"a": "b"}))
        assert all(commitment(other, rank) != before[rank] for other in others)
        assert commitment(manifest, rank) == before[rank]
