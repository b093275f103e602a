"""Open weights: everything that can be asked of hidden ones, by the same text, with the same answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch.testing import assert_close

import puma
from puma import LocalCluster
from puma.client.owner import Owner
from puma.client.public.content import UNREAD, parts, placed, weights_of
from puma.engine.dry_run import dry_run
from puma.errors import ProtocolError, ReceiptError, UsageError
from puma.models import in_the_open
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from puma.wire.messages import Encode, Generate, Input
from puma.wire.receipts import card_digest
from tests.models import tiny
from tests.models.files import talking
from tests.models.unfolded.test_laid import halved
from tests.threads import Threads

PROMPT = "the cat sat"


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    """A decoder in two bytes a number, whose head is its table."""
    folder = tiny.llama(tmp_path_factory.mktemp("open"), num_hidden_layers=1, tie_word_embeddings=True)
    return PlainModel(halved(folder, torch.bfloat16))


@pytest.fixture(scope="module")
def cluster(clear: PlainModel) -> Iterator[LocalCluster]:
    with Threads() as trio:
        yield LocalCluster(clear, trio=trio, weights="open", reveal_logits=True)  # type: ignore[arg-type]


def engines(cluster: LocalCluster) -> list[Any]:
    return cluster._trio.servers  # type: ignore[attr-defined]


def test_tokens_are_the_plain_models(cluster: LocalCluster, clear: PlainModel) -> None:
    answer = cluster.generate(PROMPT, 3)
    assert answer.token_ids == clear.greedy(clear.prompt_ids(PROMPT, 3), 3)
    assert cluster.session.card is not None and cluster.session.card.weights is not None


def test_parties_hold_what_they_need_and_map_the_file(cluster: LocalCluster, clear: PlainModel) -> None:
    """The evaluators one file among them, where it lies; the dealer, who computes on masks alone, none."""
    places = [server._model.manifest.places for server in engines(cluster)]
    assert places[0] == [] and places[1] == places[2]
    weights = {str(path.resolve()) for path in clear.checkpoint.weights}
    mapped = [
        place.file in weights for place, spec in zip(places[1], specs(cluster), strict=True) if spec.kind == "bf16"
    ]
    assert mapped and all(mapped)
    for server in engines(cluster):
        assert server._model.manifest.seeds == []
        assert all(p.known is (server.party.rank != 0) for p in server.engine.params)


def test_a_receipt_says_which_weights_answered(cluster: LocalCluster) -> None:
    receipt, served, card = cluster.generate(PROMPT, 1).receipt, cluster.session.served, cluster.session.card
    assert receipt is not None and card is not None and card.weights is not None
    puma.receipt.verify(receipt, card=card_digest(served, card).hex())
    other = msgspec.structs.replace(card, weights=msgspec.structs.replace(card.weights, sha256=bytes(32)))
    with pytest.raises(ReceiptError, match="of other weights"):
        puma.receipt.verify(receipt, card=card_digest(served, other).hex())


def specs(cluster: LocalCluster) -> list[msg.TensorSpec]:
    return engines(cluster)[1]._model.manifest.tensors


def test_the_dry_run_counts_it_to_the_byte(cluster: LocalCluster, clear: PlainModel) -> None:
    config, ids = cluster.session.served, clear.prompt_ids(PROMPT, 4)
    answer = cluster.generate(PROMPT, 4)
    counted = dry_run(config, Generate(Input([len(ids)], []), 4))
    totals = [sum(s.online + s.offline for s in each) for each in counted]
    assert list(answer.cost.per_party) == totals
    assert answer.cost.rounds == max(sum(s.rounds for s in each) for each in counted)


def test_less_is_dealt_and_sent_than_with_hidden_weights(clear: PlainModel) -> None:
    """No product with a matrix has a dealer's part, and no row is retrieved."""
    for job in (Generate(Input([6], []), 3), Generate(Input([6, 4], []), 2)):
        hidden, opened = (dry_run(config, job) for config in (clear.config, in_the_open(clear.config)))
        offline, online, rounds = (
            [sum(getattr(s, kind) for each in found for s in each) for found in (hidden, opened)]
            for kind in ("offline", "online", "rounds")
        )
        assert offline[1] < offline[0] and online[1] < online[0] and rounds[1] < rounds[0]


def test_batches_choices_and_scores_are_the_plain_ones(cluster: LocalCluster, clear: PlainModel) -> None:
    """Several prompts, tokens that the client chooses and looks up itself, and logits of every next token."""
    prompts = [clear.prompt_ids(text, 2) for text in (PROMPT, "a dog")]
    chosen = list(cluster.session.continued(prompts, 2, choose=lambda logits: logits.argmax(-1).tolist()))
    plain = [clear.greedy(ids, 2) for ids in prompts]
    assert [list(each) for each in zip(*chosen, strict=True)] == plain
    assert [list(each) for each in zip(*cluster.session.continued(prompts, 2), strict=True)] == plain
    secret = list(cluster.session.continued(prompts[:1], 2, lengths="secret"))
    assert [new for (new,) in secret] == plain[0]


def test_an_encoder_gives_the_plain_vectors(tmp_path: Path) -> None:
    """With types, positions, biases and norms that are not folded; of GPT-2's kind of file, too."""
    for make in (tiny.bert, tiny.classifier):
        clear = PlainModel(halved(make(tmp_path / make.__name__, num_hidden_layers=1), torch.float16))
        with Threads() as trio:
            cluster = LocalCluster(clear, trio=trio, weights="open")  # type: ignore[arg-type]
            tokens = clear.sentence_ids(PROMPT)
            assert_close(cluster.encode(PROMPT).values, clear.encoded(tokens).double(), atol=4e-3, rtol=0)
            counted = dry_run(cluster.session.served, Encode(Input([len(tokens.ids)], []), clear.output))
            assert list(cluster.cost.per_party) == [sum(s.online + s.offline for s in each) for each in counted]


def test_what_was_prepared_is_used_and_costs_nothing_more(memory: Path, clear: PlainModel) -> None:
    """Corrections lie with P2, and nothing more is dealt; products wait for what both evaluators know only then."""
    for _ in range(2):
        with Threads(memory) as trio:
            cluster = LocalCluster(clear, trio=trio, weights="open")  # type: ignore[arg-type]
            length = len(clear.prompt_ids(PROMPT, 2))
            if not cluster.session.prepared_requests.all():  # type: ignore[union-attr]
                plain = cluster.generate(PROMPT, 2)
                made = cluster.prepare(length, 2)
                assert made.sizes[2] > made.sizes[0] > 0
                continue
            prepared = cluster.generate(PROMPT, 2)  # by other processes, from the same files
            assert prepared.token_ids == plain.token_ids and prepared.cost.prepared is not None
            assert (prepared.cost.online, prepared.cost.offline) == (plain.cost.online, 0)


def test_a_quantised_file_is_mapped_as_it_lies(tmp_path: Path) -> None:
    """The table of embeddings, too, of which the client looks up rows; queries and keys lie in another order there."""
    path = talking.write(tmp_path, num_hidden_layers=1)
    clear = PlainModel(path)
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio, weights="open")  # type: ignore[arg-type]
        found = list(cluster.session.continued([[3, 7, 5]], 3))
        assert [new for (new,) in found] == clear.greedy([3, 7, 5], 3)
        places = engines(cluster)[1]._model.manifest.places
        kinds = [spec.kind for spec in specs(cluster)]
        mapped = [place.file == str(path.resolve()) for place in places]
    assert kinds.count("q8_0") == 9 and sum(mapped) == 7 and "bf16" not in kinds


def test_a_file_that_changes_is_another_model(memory: Path, tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path, num_hidden_layers=1)
    seen: list[str] = []
    for change in (False, False, True):
        if change:
            tiny.edit(folder, lambda state: state["model.norm.weight"].mul_(1.5))
        with Threads(memory) as trio:
            cluster = LocalCluster(folder, trio=trio, weights="open")  # type: ignore[arg-type]
            clear = cluster.model
            assert isinstance(clear, PlainModel)
            assert cluster.generate(PROMPT, 1).token_ids == clear.greedy(clear.prompt_ids(PROMPT, 1), 1)
            seen.append(cluster._name)
    assert seen[0] == seen[1] != seen[2]


def test_a_digest_is_one_of_all_that_is_computed_with(clear: PlainModel) -> None:
    """Of the numbers, and of formats and settings besides."""
    found = [part.digested() for part in parts(in_the_open(clear.config), clear.params)]
    assert all(part.spec.sha256 != UNREAD for part in found)
    one = weights_of(in_the_open(clear.config), found)
    other = parts(in_the_open(clear.config), {n: p * 1.5 for n, p in clear.params.items()})
    assert weights_of(in_the_open(clear.config), [part.digested() for part in other]).sha256 != one.sha256
    changed = msgspec.structs.replace(in_the_open(clear.config), eps=0.5)
    assert weights_of(changed, found).sha256 != one.sha256
    assert json.loads(msgspec.json.encode(one))["table"][0] == "model.embed_tokens.weight"


def test_offers_that_are_none_are_refused(clear: PlainModel, tmp_path: Path) -> None:
    """A digest that is not that of the offer, too few places, seeds: nothing is computed with weights so offered."""
    config = in_the_open(clear.config)
    found = parts(config, clear.params)
    where = placed(found, tmp_path)
    card = msg.Card("model", weights=weights_of(config, found))

    def offered(**changed: Any) -> None:
        with Threads() as trio, pytest.raises(ProtocolError) as caught:
            try:
                given = {"card": card, "places": where, "sharing": b"1" * 16} | changed
                Owner(trio.session).open_up(config, found, **given)
            finally:
                trio.session._end("tried")
        said.append(caught.value.message)

    said: list[str] = []
    offered(card=msg.Card("model"))
    offered(card=msg.Card("model", weights=msg.OpenWeights(bytes(32))))
    offered(places=where[1:])
    offered(places=[])
    assert "not those of the model" in said[0] and "digest of the weights" in said[1]
    assert "only where they lie" in said[2] and "not called by their digest" in said[3]


def test_there_are_two_kinds_of_weights(clear: PlainModel) -> None:
    with pytest.raises(UsageError, match="weights cannot be public"):
        LocalCluster(clear, weights="public")  # type: ignore[arg-type]
