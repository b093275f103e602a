"""Tiny folders of sentence-transformers, written without the library.

    folder = sentences.write(tmp_path, {"pooling_mode": "cls"}, dense=[(8, "Tanh", True)], normalise=True)

A module for each is written as the library writes it; the model itself is one of tests.models.tiny, at the top or in
a folder of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.models import tiny

OWN = "sentence_transformers.models."
KINDS = {"Identity": "torch.nn.modules.linear."}  # the others are activations
WIDTH = 24
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "pad_token": "</s>", "cls_token": "[CLS]",
    "sep_token": "[SEP]", "model_max_length": 32,
}  # fmt: skip


def write(
    folder: Path, pooling: dict[str, Any] | None = None, dense: Sequence[tuple[int, str, bool]] = (),
    normalise: bool = False, inside: str = "", own: dict[str, Any] | None = None, general: dict[str, Any] | None = None,
    body: Callable[..., Path] = tiny.bert, **settings: Any,
) -> Path:  # fmt: skip
    """A folder whose modules.json names a Transformer, a Pooling unless that is None, Dense modules (how wide, which
    activation, whether with a bias) and perhaps a Normalize. `own` is sentence_bert_config.json, `general` what
    config_sentence_transformers.json says.
    """
    made = body(folder / inside, **({"num_hidden_layers": 1} | settings))
    (made / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    if own is not None:
        (made / "sentence_bert_config.json").write_text(json.dumps(own))
    if general is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(general))
    modules, width = [("Transformer", inside)], WIDTH
    if pooling is not None:
        place = _placed(folder, f"{len(modules)}_Pooling", {"word_embedding_dimension": WIDTH} | pooling)
        modules.append(("Pooling", place))
        width *= _parts(pooling)
    for wide, activation, bias in dense:
        named = KINDS.get(activation, "torch.nn.modules.activation.") + activation
        said = {"in_features": width, "out_features": wide, "bias": bias, "activation_function": named}
        place = _placed(folder, f"{len(modules)}_Dense", said)
        save_file(matrix(wide, width, bias, len(modules)), folder / place / "model.safetensors")
        modules.append(("Dense", place))
        width = wide
    modules += [("Normalize", f"{len(modules)}_Normalize")] if normalise else []
    named_modules(folder, modules)
    return folder


def named_modules(folder: Path, modules: Sequence[tuple[str, str]]) -> None:
    """modules.json, of kinds and places."""
    found = [{"idx": i, "name": str(i), "path": path, "type": OWN + kind} for i, (kind, path) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(found))


def matrix(wide: int, width: int, bias: bool, seed: int) -> dict[str, torch.Tensor]:
    """The tensors of a Dense."""
    generator = torch.Generator().manual_seed(seed)
    found = {"linear.weight": torch.randn(wide, width, generator=generator) * width**-0.5}
    return found | ({"linear.bias": torch.randn(wide, generator=generator) * 0.3} if bias else {})


def _placed(folder: Path, name: str, settings: dict[str, Any]) -> str:
    (folder / name).mkdir(parents=True)
    (folder / name / "config.json").write_text(json.dumps(settings))
    return name


def _parts(pooling: dict[str, Any]) -> int:
    named = pooling.get("pooling_mode")
    if named is not None:
        return len(named) if isinstance(named, list) else 1
    return max(1, sum(on is True for key, on in pooling.items() if key.startswith("pooling_mode_")))


def judge(folder: Path, **settings: Any) -> Path:
    """A folder of a CrossEncoder as Qwen3-Reranker is one: a decoder that is asked in its chat template whether a text
    answers, and of whose logits those of two words count."""
    tiny.llama(folder, **({"num_hidden_layers": 1} | settings))
    template = "<s> {% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}it was"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    _placed(folder, "1_LogitScore", {"true_token_id": 9, "false_token_id": 12})
    named_modules(folder, [("Transformer", ""), ("LogitScore", "1_LogitScore")])
    return folder
