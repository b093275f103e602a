"""A small model on the client's own machine guesses what the other one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from puma.client.drafts.model import DraftModel, open_model
from puma.client.drafts.opening import opened
from puma.client.sampling import Sampling
from puma.errors import UsageError
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from tests.client.drafts.test_tempo import measured
from tests.models import tiny, zoo
from tests.threads import Threads


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("asked"), num_hidden_layers=1))


def made(clear: PlainModel, folder: Any = None) -> DraftModel:
    return open_model(folder or clear.checkpoint.folder, clear.config, clear.tokenizer)


def test_it_says_what_it_would_say_whatever_was_wrong_before(clear: PlainModel) -> None:
    """Its cache is cut where the text went on otherwise: each proposal is as if it had read the text anew."""
    ids = [1, 5, 7, 9]
    drafter = made(clear).begin(ids, Sampling(), measured(1.0, 0.0))
    drafter._right, drafter._seen = 99.0, 100.0
    for new in ([], [6], [4, 4, 4], clear.greedy([*ids, 6, 4, 4, 4], 3), [3]):
        drafter.learn(new)
        ids += new
        found = list(drafter.propose(4, 4).tokens)
        assert found and found == clear.greedy(ids, 4)[: len(found)]


def test_its_chances_are_those_of_its_logits(clear: PlainModel) -> None:
    how = Sampling(0.8, top_k=4)
    draft = made(clear).begin([1, 5, 7], how, measured(1.0, 0.0)).propose(3, 3)
    assert draft.chances is not None and len(draft.chances) == len(draft.tokens) > 0
    for token, chances in zip(draft.tokens, draft.chances, strict=True):
        assert chances.shape == (clear.config.vocab_size,) and float(chances.sum()) == pytest.approx(1)
        assert float(chances[token]) > 0 and int((chances > 0).sum()) == 4


def test_it_rests_when_its_guesses_are_wrong(clear: PlainModel) -> None:
    drafter, rests = made(clear).begin([1, 5], Sampling(), measured(1.0, 0.2)), 0
    for _ in range(30):
        tokens = drafter.propose(4, 4).tokens
        rests += not tokens
        drafter.learn([(tokens[0] + 1) % 28 if tokens else 3] if len(drafter._text) < 25 else [])
    assert rests > 15


def test_answers_by_the_model_itself(clear: PlainModel) -> None:
    """As a draft for itself it is nearly always right; answers are the same, samples come by the rule."""
    prompt = "the cat sat on"
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        plain = cluster.generate(prompt, 12).token_ids
        folder = str(clear.checkpoint.folder)
        answer = cluster.generate(prompt, 12, draft=folder)
        assert answer.token_ids == plain and answer.cost.drafts.a_step > 1.5
        assert opened(folder, clear) is opened(folder, clear), "it is read once"
        drawn = cluster.generate(prompt, 12, draft=folder, temperature=1.0, seed=5)
        assert len(drawn.token_ids) == 12 and drawn.cost.drafts.accepted == drawn.cost.drafts.drafted


def test_models_that_cannot_draft(clear: PlainModel, tmp_path: Path) -> None:
    folders = {name: zoo.write(_made(tmp_path / name), name) for name in ("mistral", "t5", "qwen3.5")}
    for name, why in (("mistral", "another tokenizer"), ("t5", "continues no text"), ("qwen3.5", "memory")):
        with pytest.raises(UsageError, match=why) as caught:
            made(clear, folders[name])
        assert "lookup" in caught.value.hint
    bert = tiny.bert(_made(tmp_path / "bert"))
    with pytest.raises(UsageError, match="continues no text"):
        opened(bert, clear)


def test_a_larger_vocabulary_of_the_draft_is_cut_off(clear: PlainModel) -> None:
    drafts = made(clear)
    drafts.vocabulary = 20
    drafter = drafts.begin([1, 5, 7], Sampling(1.0), measured(1.0, 0.0))
    for _ in range(20):
        draft = drafter.propose(3, 3)
        assert all(token < 20 for token in draft.tokens)
        assert draft.chances is None or all(len(chances) == 20 for chances in draft.chances)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
