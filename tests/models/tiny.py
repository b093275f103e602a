"""Tiny random checkpoints in Hugging Face's layout, written without transformers, for tests on any floor.

    folder = tiny.llama(tmp_path)                     # or tiny.gpt2, tiny.bert, tiny.classifier
    folder = tiny.llama(tmp_path, num_hidden_layers=1, tie_word_embeddings=True)

Every keyword is a setting of config.json.  The tokenizer knows the words in `WORDS`; "the cat sat" is three
tokens, after <s> for LLaMA, between [CLS] and [SEP] for BERT.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as tokenizer_models

from puma.models.checkpoint import configure
from puma.models.families import FAMILIES

State = dict[str, torch.Tensor]
SPECIAL = ["<unk>", "<s>", "</s>", "[CLS]", "[SEP]"]
SENTENCE = "the a cat dog sat ran on under mat hat and it was red big little one day saw then they went home"
WORDS = SENTENCE.split()
VOCABULARY = len(SPECIAL) + len(WORDS)  # 28

LLAMA = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": VOCABULARY,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "n_positions": 32,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BERT = {
    "model_type": "bert",
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def llama(folder: Path, **settings: Any) -> Path:
    """A LlamaForCausalLM: four query heads on two key heads."""
    return write(folder, "LlamaForCausalLM", LLAMA | settings, "<s> $A")


def gpt2(folder: Path, **settings: Any) -> Path:
    """A GPT2LMHeadModel, tied."""
    return write(folder, "GPT2LMHeadModel", GPT2 | settings, "$A")


def bert(folder: Path, **settings: Any) -> Path:
    """A BertModel."""
    return write(folder, "BertModel", BERT | settings, "[CLS] $A [SEP]")


def classifier(folder: Path, labels: tuple[str, ...] = ("bad", "fair", "good"), **settings: Any) -> Path:
    """A BertForSequenceClassification."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    return write(folder, "BertForSequenceClassification", BERT | names | settings, "[CLS] $A [SEP]")


def write(folder: Path, architecture: str, settings: dict[str, Any], template: str) -> Path:
    """Write config.json, model.safetensors and tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings | {"architectures": [architecture]}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(random_state(architecture, settings), folder / "model.safetensors", {"format": "pt"})
    tokenizer(template).save(str(folder / "tokenizer.json"))
    return folder


def random_state(architecture: str, settings: dict[str, Any], seed: int = 0) -> State:
    """Random tensors of the size that training leaves: matrices keep the scale, norms and biases matter."""
    shapes = FAMILIES[architecture].tensors(configure(architecture, settings, set()))
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 2:
            state[name] = noise * (0.5 if "embed" in name or ".wte." in name else shape[-1] ** -0.5)
        else:
            state[name] = 0.2 * noise + (1 if "norm" in name.lower() or ".ln_" in name else 0) * name.endswith("weight")
    return state


def tokenizer(template: str) -> Tokenizer:
    """Words between spaces, with a checkpoint's special tokens around a text."""
    words = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    result = Tokenizer(tokenizer_models.WordLevel(words, unk_token="<unk>"))
    result.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    result.add_special_tokens(SPECIAL)
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1" if "[CLS]" in template else None
    special = [(token, words[token]) for token in SPECIAL]
    result.post_processor = processors.TemplateProcessing(single=template, pair=pair, special_tokens=special)
    return result


def edit(folder: Path, change: Callable[[State], object]) -> Path:
    """Change the tensors of a checkpoint in place."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    return folder


def configure_folder(folder: Path, **settings: Any) -> Path:
    """Change settings of config.json in place."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder
