"""Real checkpoints, if PUMA_TEST_DATA names a folder that holds them: three processes answer as the plain run does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from puma import LocalCluster
from puma.local.cluster import Trio
from puma.reference.plain_model import PlainModel

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(900)]
Find = Callable[[str], Path]
STORIES = ("Once upon a time", "Tom and Lily went to the park", "The little dog was sad because")
SENTENCES = ("An uncommonly good film, if a little long.", "A waste of two hours.", "I would watch it again.")


def test_stories_go_on_as_in_the_clear(real: Find, processes: Trio) -> None:
    clear = PlainModel(real("stories260k-hf"))
    cluster = LocalCluster(clear, trio=processes)
    for prompt in STORIES:
        ids = clear.prompt_ids(prompt, 50)
        assert cluster.generate(prompt, 50).token_ids == clear.greedy(ids, 50), prompt


def test_stories_told_together(real: Find, processes: Trio) -> None:
    clear = PlainModel(real("stories260k-hf"))
    answers = LocalCluster(clear, trio=processes).generate(STORIES, 50)
    assert [a.token_ids for a in answers] == [clear.greedy(clear.prompt_ids(p, 50), 50) for p in STORIES]


def test_sums_are_exact(real: Find, processes: Trio) -> None:
    cluster = LocalCluster(real("minigpt-adder-hf"), trio=processes)
    numbers = torch.randint(0, 100, (200, 2), generator=torch.Generator().manual_seed(5)).tolist()
    wrong = []
    for a, b in numbers:
        digits = cluster.generate(f"{a:02}{b:02}", 3).token_ids  # units first
        if sum(digit * 10**i for i, digit in enumerate(digits)) != a + b:
            wrong.append((a, b, digits))
    assert not wrong


def test_sentence_embeddings_are_the_same(real: Find, processes: Trio) -> None:
    clear = PlainModel(real("minilm-hf-fp16"))
    for sentence, found in zip(SENTENCES, LocalCluster(clear, trio=processes).encode([*SENTENCES]), strict=True):
        plain = clear.encoded(clear.sentence_ids(sentence))
        assert float(found.values @ plain) > 0.9999


def test_sentiments_are_the_same(real: Find, processes: Trio) -> None:
    clear = PlainModel(real("minilm-sst2-hf"))
    cluster = LocalCluster(clear, trio=processes)
    for sentence in SENTENCES:
        plain = clear.encoded(clear.sentence_ids(sentence))
        secure, named = cluster.encode(sentence).values, cluster.classify(sentence)
        assert int(secure.argmax()) == int(plain.argmax())
        assert named.label == clear.labels[int(plain.argmax())]
        assert named.scores == pytest.approx(sorted(plain.softmax(-1).tolist(), reverse=True), abs=0.02)
        assert float((secure - plain).abs().max()) < 0.05
