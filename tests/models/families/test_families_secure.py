"""On shares, every family gives what it gives on tensors, up to fixed point; and its ranges can be proven."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from torch.testing import assert_close

from puma.models import Cache, architecture, heads
from puma.mpc.fixed import ACTIVATION, RESIDUAL_RING, RING, formatted
from puma.mpc.party import Party
from puma.wire.parameters import parameter_frac
from tests.models import zoo
from tests.models.plain import one_hot, open_model
from tests.trio import given, parties, value

BATCH = [[2, 5], [2, 5, 7, 9, 27, 6], [2, 8, 20]]
LENGTHS = [len(ids) for ids in BATCH]
NEXT = [4, 8, 12]
CAUSAL = ["llama-3", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3", "neox", "opt", "t5", "t5-gated"]
CAUSAL += ["bart", "mbart", "marian", "m2m100"]
CAUSAL += ["olmo2", "cohere2", "granite", "glm4", "qwen2-moe", "gpt-oss", "qwen3.5", "qwen3-next"]
ENCODERS = [
    "bart-classifier",
    "Roberta-SequenceClassification",
    "DistilBert-SequenceClassification",
    "DistilBert-MaskedLM",
    "Electra-SequenceClassification",
    "Electra-MaskedLM",
    "Albert-TokenClassification",
    "Albert-MaskedLM",
    "qwen3-classifier",
    "MPNet-SequenceClassification",
    "DebertaV2-SequenceClassification",
    "NomicBert-TokenClassification",
    "Gte-MaskedLM",
    "ModernBert-mean",
    "gpt2-answers",
]


def answers(model: Any, feed: Any) -> list[Any]:
    """What a model answers to the batch: tokens' logits, classes or masked tokens."""
    config = model.config
    if heads(config).generates:
        cache = Cache(config.layers, LENGTHS)
        return [model(feed(ids), cache) for ids in ([*chain(*BATCH)], NEXT)]
    hidden = model.states(feed([*chain(*BATCH)]), LENGTHS)
    return [hidden, model.predict(hidden, [1, 4]) if heads(config).predicts else model.classify(hidden, LENGTHS)]


@pytest.mark.parametrize("name", CAUSAL + ENCODERS)
def test_shares_are_near_tensors(name: str, tmp_path: Path) -> None:
    checkpoint, model = open_model(zoo.write(tmp_path, name))
    config, params = checkpoint.config, checkpoint.fold()

    def secure(party: Party) -> list[Any]:
        shares = {name: given(party, t, RING, parameter_frac(name), name) for name, t in params.items()}
        found = answers(
            architecture(config).model(config, shares),
            lambda ids: given(party, one_hot(ids, zoo.VOCABULARY), RESIDUAL_RING, 0, f"rows {ids}"),
        )
        return party.run(formatted(*((answer, ACTIVATION, 28) for answer in found)))

    results = parties(secure)
    for i, tensor in enumerate(answers(model, lambda ids: one_hot(ids, zoo.VOCABULARY))):
        assert_close(value([result[i] for result in results]).float(), tensor, atol=0.02, rtol=0)
