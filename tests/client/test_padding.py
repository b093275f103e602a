"""Texts whose lengths stay secret: the same answers, and only the common length leaves the client."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from puma import LocalCluster
from puma.client.lengths import secret_length
from puma.engine.dry_run import dry_run
from puma.errors import InputError, RangeError, UsageError
from puma.local.cluster import Trio
from puma.models.config import Encoder
from puma.models.ranges import check_hiding, hides
from puma.reference.plain_model import PlainModel
from puma.wire.input_share import Seeds
from puma.wire.messages import Encode, Input
from puma.wire.prompt import share_input
from tests.models import zoo
from tests.models.plain import one_hot, open_model, usual
from tests.models.tiny import VOCABULARY

TEXTS = ["the cat sat on the mat", "a dog"]


@pytest.mark.parametrize("name", ["Bert-SequenceClassification", "Albert-TokenClassification", "roberta"])
def test_padding_changes_nothing_on_tensors(name: str, tmp_path: Path) -> None:
    _, model = open_model(zoo.write(tmp_path, name))
    prompts, width = [[2, 5, 7, 9], [2, 8]], 6
    rows = one_hot([*chain(*(ids + [0] * (width - len(ids)) for ids in prompts))], zoo.VOCABULARY)
    padding = torch.tensor([0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1]).float()
    found = model(rows, None, [width] * 2, padding).split(width)
    for ids, states in zip(prompts, found, strict=True):
        assert_close(states[: len(ids)], model(one_hot(ids, zoo.VOCABULARY)), atol=1e-5, rtol=1e-5)


@pytest.mark.processes
@pytest.mark.parametrize("name", ["Electra-SequenceClassification", "Albert-TokenClassification", "roberta"])
def test_the_answers_are_those_of_public_lengths(name: str, tmp_path: Path, processes: Trio) -> None:
    clear = PlainModel(zoo.write(tmp_path, name))
    cluster = LocalCluster(clear, trio=processes)
    for text, found in zip(TEXTS, cluster.encode(TEXTS, lengths="secret"), strict=True):
        assert_close(found.values, clear.encoded(clear.sentence_ids(text)), atol=0.03, rtol=0)
    first = cluster.cost
    cluster.encode([TEXTS[1], TEXTS[1]], lengths="secret")
    assert (first.rounds, first.bytes()) == (cluster.cost.rounds, cluster.cost.bytes())
    output = "logits" if clear.labels else "pooled"
    counted = dry_run(clear.config, Encode(Input([16, 16], [], padded=True), output))
    assert first.rounds == sum(entry.rounds for entry in counted[1])
    hidden = cluster.session.encode([[3, 5, 4]], "hidden", lengths="secret", padded=5)
    assert [tuple(states.shape) for states in hidden] == [(3, clear.config.hidden_size)]


def test_secret_lengths_are_powers_of_two() -> None:
    """From 16 on, up to what the model can read: of a text nothing but the power above its length leaves the client."""
    config = Encoder(vocab_size=8, hidden_size=8, intermediate_size=8, layers=1, heads=2, context=100)
    told = {n: secret_length(config, [[1] * n, [2]], (), 0) for n in range(1, 101)}
    assert [n for n in told if told[n] != told.get(n - 1)] == [1, 17, 33, 65]
    assert sorted(set(told.values())) == [16, 32, 64, 100] and told[16] == 16 and told[17] == 32
    assert secret_length(config, [[1] * 17], (), 40) == 40
    with pytest.raises(UsageError, match="token types"):
        secret_length(config, [[1, 2]], [[0, 1]], 0)


def test_what_a_party_gets_of_padding_changes_with_its_masks() -> None:
    ids, padding = [1, 2, 0], [0, 0, 1]
    first, second = (share_input(ids, VOCABULARY, Seeds.fresh(), padding) for _ in range(2))
    for one, two in zip(first[1:], second[1:], strict=True):
        assert not torch.equal(one.payload[-18:], two.payload[-18:])
    assert not first[0].payload.numel()


@pytest.mark.processes
def test_what_cannot_be_secret(tmp_path: Path, processes: Trio) -> None:
    cluster = LocalCluster(zoo.write(tmp_path / "bert", "Bert-SequenceClassification"), trio=processes)
    with pytest.raises(UsageError, match="lengths cannot be hidden"):
        cluster.encode(TEXTS, lengths="hidden")
    with pytest.raises(UsageError, match="token types"):
        cluster.session.encode([[3, 5, 4]], "logits", [[0, 0, 1]], lengths="secret")
    for padded in (2, 33):
        with pytest.raises(InputError, match="cannot be padded"):
            cluster.session.encode([[3, 5, 4]], "logits", lengths="secret", padded=padded)
    config, params = usual(cluster.model.config), dict(cluster.model.params)
    assert hides(config, params)
    params["bert.encoder.layer.0.attention.self.query.weight"] = 100 * torch.ones(24, 24)
    with pytest.raises(RangeError, match="too wide for hiding some in secret"):
        check_hiding(config, params, "make the lengths of texts public")
    assert not hides(config, params)
    decoder = PlainModel(zoo.write(tmp_path / "llama", "llama-classifier"))
    with pytest.raises(UsageError, match="only encoders"):
        decoder.check_padding()


@pytest.mark.processes
def test_masked_tokens_of_texts_of_secret_length(tmp_path: Path, processes: Trio) -> None:
    cluster = LocalCluster(zoo.write(tmp_path / "bert", "Bert-MaskedLM"), trio=processes)
    text = "the cat [MASK] on the [MASK]"
    tokens = cluster.model.sentence_ids(text)
    (expected,) = cluster.model.session.fill([tokens.ids], [cluster.model.masked_places(tokens)], 2)
    assert cluster.fill(text, 2, lengths="secret", padded=12) == [
        [cluster.decode([i]) for i in row] for row in expected
    ]
    places = cluster.model.masked_places(tokens)
    found = cluster.session.fill([tokens.ids[:3], tokens.ids], [[1], places], lengths="secret")  # the first one shorter
    plain = cluster.session.fill([tokens.ids[:3], tokens.ids], [[1], places])
    assert found == plain
    with pytest.raises(UsageError, match="lengths cannot be hidden"):
        cluster.fill(text, lengths="hidden")
