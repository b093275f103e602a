"""Bodies without a head, and what else config.json can ask for since, through three parties: as in the clear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.testing import assert_close

from puma import LocalCluster
from puma.errors import UsageError
from puma.reference.plain_model import PlainModel
from tests.models.library import compare
from tests.models.library.settings import GONE, Case
from tests.models.tiny import tokenizer
from tests.threads import Threads

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "LlamaModel", {"hidden_act": "quick_gelu"}),
    ("gpt2", "GPT2Model", {"activation_function": "quick_gelu", "scale_attn_by_inverse_layer_idx": True}),
    ("t5", "T5EncoderModel", {"id2label": GONE}),
    ("gpt_neox", "GPTNeoXForSequenceClassification", {"attention_bias": False}),
]


@pytest.mark.parametrize(("model_type", "architecture", "settings"), CASES)
def test_parties_compute_what_the_owner_does(
    model_type: str, architecture: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "it"
    assert compare.made(Case(model_type, architecture, tuple(settings.items())), folder)
    tokenizer("<s> $A").save(str(folder / "tokenizer.json"))
    clear = PlainModel(folder)
    with Threads() as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        found = cluster.encode(["the cat sat", "a dog"])
        for text, answer in zip(("the cat sat", "a dog"), found, strict=True):
            expected = clear.encoded(clear.sentence_ids(text))
            assert_close(answer.values.float(), expected.float(), atol=0.03, rtol=0.03)
        with pytest.raises(UsageError, match="does not generate text"):
            cluster.generate("the cat", 1)
