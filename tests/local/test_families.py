"""A model of every family through three real processes: what they answer is what the plain model says."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy
import pytest
import torch
from torch.testing import assert_close

from puma import LocalCluster
from puma.client.speech import transcripts
from puma.engine.dry_run import dry_run
from puma.errors import InputError, UsageError
from puma.local.cluster import Trio
from puma.models import heads, inputs
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Encode, Generate, Input
from tests.models import speech, zoo

pytestmark = pytest.mark.processes
TEXT, MASKED = "the cat sat on the mat", "the [MASK] sat on the [MASK]"
SOUND = (torch.arange(speech.WINDOW + 900) * 0.3).sin() * 0.7
QUICK = ("vit", "t5", "mistral", "Electra-MaskedLM", "Albert-TokenClassification")


def image(clear: PlainModel, name: str) -> str:
    """A file with random pixels."""
    config = clear.config
    shape = (config.image_size, config.image_size, config.channels)
    path = clear.checkpoint.folder / f"{name}.npy"
    numpy.save(path, numpy.frombuffer(os.urandom(math.prod(shape)), numpy.uint8).reshape(shape))
    return str(path)


def answers_alike(cluster: LocalCluster, clear: PlainModel) -> None:
    """One request of each kind that the model is for."""
    config = clear.config
    if inputs(config).spoken:
        begun = transcripts.begins(clear, "de", "transcribe")
        heard = [clear.greedy(piece, 4, begun=begun) for piece in transcripts.heard(clear, SOUND)]
        ends = [transcripts.up_to_end(ids, clear.eos) for ids in heard]
        assert cluster.transcribe(SOUND, "de", tokens=4).token_ids == ends
        return
    if heads(config).generates:
        if (barred := inputs(config).barred) is not None:  # the token that every text here begins with
            ids = [token for token in clear.tokenizer.encode(TEXT).ids if token != barred]
            assert [new for (new,) in cluster.session.continued([ids], 3)] == clear.greedy(ids, 3)
            return
        answer = cluster.generate(TEXT, 3)
        assert answer.token_ids == clear.greedy(clear.prompt_ids(TEXT, 3), 3)
        return
    texts = [TEXT, "a dog"]
    if inputs(config).rows:
        texts = [image(clear, name) for name in ("one", "two")]
    for text, found in zip(texts, cluster.encode(texts), strict=True):
        assert_close(found.values, clear.encoded(clear.sentence_ids(text)), atol=0.03, rtol=0)
    if getattr(config, "predicts", False):
        tokens = clear.sentence_ids(MASKED)
        (plain,) = clear.session.fill([tokens.ids], [clear.masked_places(tokens)], 1, [tokens.types])
        # Of random weights the second and third may be closer than fixed point can tell.
        assert cluster.fill(MASKED, 1) == [[clear.decode([token]) for token in ranked] for ranked in plain]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in zoo.ALL]
)
def test_every_family(name: str, tmp_path: Path, processes: Trio) -> None:
    clear = PlainModel(speech.write(tmp_path) if name in zoo.SOUND else zoo.write(tmp_path, name))
    answers_alike(LocalCluster(clear, trio=processes), clear)


def test_places_that_are_not_masked(tmp_path: Path, processes: Trio) -> None:
    cluster = LocalCluster(zoo.write(tmp_path / "filled", "Electra-MaskedLM"), trio=processes)
    with pytest.raises(InputError, match="no token of the text is masked"):
        cluster.fill(TEXT)
    with pytest.raises(InputError, match="not among the tokens"):
        cluster.session.fill([[3, 5]], [[2]])
    cluster = LocalCluster(zoo.write(tmp_path / "classes", "Albert-TokenClassification"), trio=processes)
    with pytest.raises(UsageError, match="no head for masked tokens"):
        cluster.fill(MASKED)
    with pytest.raises(UsageError, match="does not generate"):
        PlainModel(zoo.write(tmp_path / "last", "llama-classifier")).prompt_ids(TEXT, 1)


@pytest.mark.parametrize("name", ["gemma2", "Albert-MaskedLM"])
def test_the_cost_counted_is_the_cost(name: str, tmp_path: Path, processes: Trio) -> None:
    clear = PlainModel(zoo.write(tmp_path, name))
    cluster = LocalCluster(clear, trio=processes)
    if name == "gemma2":
        request = Generate(Input([6], []), 2)
        list(cluster.session.continued([[2, 5, 7, 9, 11, 6]], 2))
    else:
        request = Encode(Input([6], []), "tokens", rows=[2, 3], top=2)
        cluster.session.fill([[3, 5, 7, 9, 11, 4]], [[2, 3]], 2)
    counted = dry_run(clear.config, request)
    assert cluster.cost.rounds == sum(entry.rounds for entry in counted[1])
