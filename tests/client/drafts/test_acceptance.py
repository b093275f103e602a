"""Drafts change no chance: whatever is drafted, each token comes as often as it does without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from puma.client.drafts.acceptance import accepted
from puma.client.drafts.draft import Draft
from puma.client.sampling import Sampler, Sampling
from puma.client.tokens.rules import Rules
from puma.models import Cache, architecture
from puma.models.checkpoint import load
from tests.models import tiny

RUNS, LIMIT = 1000, 99.6  # chi squared of 63 degrees of freedom, 99.8 %
FEW = [5, 6, 7, 8]  # tokens that are drawn: 64 texts of three


def test_the_longest_agreeing_beginning_counts() -> None:
    results = torch.tensor([4.0, 5.0, 6.0, 7.0], dtype=torch.float64)
    for draft, found in (([4, 5, 6], [4, 5, 6, 7]), ([4, 9, 6], [4, 5]), ([9, 5, 6], [4])):
        assert accepted(results, Draft(draft)) == (found, [*range(len(found))])
    assert accepted(results[:1], Draft()) == ([4], [0])


def test_of_drafts_side_by_side_the_right_one_counts_and_what_follows_it() -> None:
    results = torch.tensor([4.0, 9.0, 5.0, 9.0, 6.0], dtype=torch.float64)
    assert accepted(results, Draft([3, 4, 5, 5], None, [0, 0, 1, 2])) == ([4, 5, 6], [0, 2, 4])
    assert accepted(results, Draft([3, 5, 5, 5], None, [0, 0, 1, 2])) == ([4], [0])


def test_a_draft_within_bounds() -> None:
    tree = Draft([1, 2, 3, 4], None, [0, 0, 1, 3])
    assert tree.within(9, 9) == tree and tree.within(2, 9) == Draft([1, 2], None, [0, 0])
    assert tree.within(9, 2) == Draft([1, 2, 3], None, [0, 0, 1]) and tree.within(9, 0).tokens == []
    chain = Draft([5, 6, 7])
    assert chain.within(2, 9) == Draft([5, 6]) and chain.within(9, 1) == Draft([5]) and chain.follows == [0, 1, 2]


class Models:
    """A fixed tiny model that is asked and another that drafts: chances of the next of a few tokens, by the text."""

    def __init__(self, folder: Path) -> None:
        self.asked, self.drafts = (self._read(tiny.llama(folder / str(i), num_hidden_layers=i)) for i in (1, 2))

    def _read(self, folder: Path) -> dict[tuple[int, ...], torch.Tensor]:
        checkpoint = load(folder)
        model = architecture(checkpoint.config).model(checkpoint.config, checkpoint.fold())
        texts = [(), *((a,) for a in FEW), *((a, b) for a in FEW for b in FEW)]
        found = {}
        for text in texts:
            logits = model(torch.tensor([1, 9, *text]), Cache(checkpoint.config.layers))[0].double()
            found[text] = torch.full_like(logits, -torch.inf)
            found[text][FEW] = logits[FEW]
        return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("acceptance")
    for name in "12":
        (folder / name).mkdir()
    return Models(folder)


def answer(models: Models, chooser: Sampler, drafter: Sampler, how: str) -> tuple[int, ...]:
    """Three tokens, drafted two at a time by the other model or by a rule."""
    text: tuple[int, ...] = ()
    while len(text) < 3:
        tokens, chances, so_far = list[int](), list[torch.Tensor](), text
        while len(so_far) < min(2, len(text) + 2):
            found = drafter.chances(models.drafts[so_far])
            token = {"drawn": drafter.drawn(found), "likeliest": int(found.argmax()), "always 6": 6}[how]
            tokens.append(token)
            chances.append(found)
            so_far = (*so_far, token)
        draft = Draft(tokens, chances if how == "drawn" else None)
        rows = torch.stack([models.asked[(*text, *tokens[:n])] for n in range(len(tokens) + 1)])
        text = (*text, *accepted(rows, draft, chooser)[0])
    return text[:3]


@pytest.mark.parametrize(
    ("how", "settings"),
    [
        ("drawn", {"temperature": 1.0}),
        ("drawn", {"temperature": 0.7, "top_k": 3}),
        ("likeliest", {"temperature": 1.0}),
        ("always 6", {"temperature": 1.0}),
    ],
)
def test_texts_come_as_often_as_without_drafts(models: Models, how: str, settings: dict) -> None:
    """Whole texts, so that what was accepted may not change what comes after it; against the exact chances."""
    sampling = Sampling(**settings, seed=11)
    chooser, drafter = Sampler(sampling), Sampler(Sampling(**settings, seed=12), drafts=True)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(RUNS):
        found = answer(models, chooser, drafter, how)
        counts[found] = counts.get(found, 0) + 1
    total, expected = 0.0, {}
    for a in FEW:
        for b in FEW:
            for c in FEW:
                chances = [chooser.chances(models.asked[t]) for t in ((), (a,), (a, b))]
                expected[a, b, c] = float(chances[0][a] * chances[1][b] * chances[2][c])
    assert all(expected[text] > 0 for text in counts)
    rare = [text for text, chance in expected.items() if RUNS * chance < 5]
    groups = [[text] for text, chance in expected.items() if RUNS * chance >= 5] + ([rare] if rare else [])
    for group in groups:
        wanted, got = RUNS * sum(expected[t] for t in group), sum(counts.get(t, 0) for t in group)
        total += (got - wanted) ** 2 / wanted if wanted else got
    assert len(groups) > 8 and total < LIMIT


def test_the_rule_accepts_as_often_as_can_be(models: Models) -> None:
    """One minus half the distance of both distributions; the statistical test above would pass without any draft."""
    p, q = (Sampler(Sampling(1.0)).chances(each[()]) for each in (models.asked, models.drafts))
    chooser, drafter = Sampler(Sampling(1.0, seed=1)), Sampler(Sampling(1.0, seed=2))
    taken = 0
    for _ in range(RUNS):
        token = drafter.drawn(q)
        taken += chooser.one(0, models.asked[()], token, q) == token
    assert taken / RUNS == pytest.approx(float(torch.minimum(p, q).sum()), abs=0.03)


def test_numbers_that_draw_are_not_those_that_judge(models: Models) -> None:
    """With one seed for both, as a user gives it."""
    p, q = (Sampler(Sampling(1.0)).chances(each[()]) for each in (models.asked, models.drafts))
    counts = torch.zeros_like(p)
    for seed in range(RUNS):
        how = Sampling(1.0, seed=seed)
        chooser, drafter = Sampler(how), Sampler(how, drafts=True)
        counts[chooser.one(0, models.asked[()], drafter.drawn(q), q)] += 1
    assert float(((counts - RUNS * p)[FEW] ** 2 / (RUNS * p)[FEW]).sum()) < 21.1  # 3 degrees of freedom, 99.99 %


def test_a_seed_gives_the_same_text_with_copied_drafts_and_without(models: Models) -> None:
    """What is not drawn takes no number of its own: one prompt's answer is that of its seed."""
    for seed in range(20):
        drafted = answer(models, Sampler(Sampling(1.0, seed=seed)), Sampler(Sampling(1.0)), "always 6")
        plain, text = Sampler(Sampling(1.0, seed=seed)), ()
        while len(text) < 3:
            text = (*text, *plain(models.asked[text][None]))
        assert drafted == text


def test_rules_follow_the_text_that_drafts_make(models: Models) -> None:
    """Row by row, as if one token came after the other: two prompts, each with its own text."""
    rules, prompts = Rules(no_repeat_ngram_size=2, repetition_penalty=1.3), [[5, 6], [7, 8]]
    logits = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    plain, drafted = (Sampler(Sampling(), rules.following(prompts, [], [])) for _ in range(2))
    wanted = [plain(logits[:, step]) for step in range(6)]
    for place in (1, 0):
        answer, at = [step[place] for step in wanted], 0
        while at < 6:
            found, _ = accepted(logits[place, at:], Draft([*answer[at : at + 2], 0][: 5 - at]), drafted, place)
            assert found == answer[at : at + len(found)] and (len(found) >= 3 or at + len(found) == 6)
            at += len(found)
