"""Models: one file per architecture, and which architecture a checkpoint's name stands for.

The same model runs on torch tensors, on shares and on torch's meta device; it must not know which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from puma.errors import UnsupportedModel
from puma.models import bert, config, gpt2, llama
from puma.models.cache import Cache, LayerCache
from puma.models.config import Config

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Architecture:
    """What is needed to load, share and run models of one architecture."""

    family: Literal["causal", "encoder"]
    config: type[Any]
    model: Callable[..., Any]  # (config, name -> parameter) -> the model, ready to call
    tensors: Callable[[Any], Shapes]  # what a checkpoint must hold
    fold: Callable[[Any, dict[str, Any]], dict[str, Any]]  # at the owner: checkpoint's tensors -> parameters

    def parameters(self, config: Config) -> Shapes:
        """Names and shapes of what the owner shares."""
        return self.model(config).shapes()


LLAMA = Architecture("causal", config.Llama, llama.Model, llama.tensors, llama.fold)
GPT2 = Architecture("causal", config.Gpt2, gpt2.Model, gpt2.tensors, gpt2.fold)
BERT = Architecture("encoder", config.Bert, bert.Model, bert.tensors, bert.fold)

# The name in "architectures" of config.json.  Of the two pre-training classes only the encoder is used.
ARCHITECTURES = {
    "LlamaForCausalLM": LLAMA,
    "GPT2LMHeadModel": GPT2,
    "BertModel": BERT,
    "BertForSequenceClassification": BERT,
    "BertForMaskedLM": BERT,
    "BertForPreTraining": BERT,
}


def architecture(config: Config) -> Architecture:
    """The architecture that a config belongs to."""
    for candidate in (LLAMA, GPT2, BERT):
        if isinstance(config, candidate.config):
            return candidate
    raise UnsupportedModel(f"{type(config).__name__} is no model config", "use one of puma.models.config")


__all__ = ["ARCHITECTURES", "Architecture", "Cache", "Config", "LayerCache", "architecture"]
