"""A folder of sentence-transformers' CrossEncoder: what it says, besides config.json, of how a query and a text are put
to the model and how logits become scores.

One kind is a model that generates, and is asked whether the text answers the query: what counts is by how much the
logit of one word exceeds that of another. The difference of their two rows of the head is a head for one class, and so
the model is read as a classifier: no other logit leaves the parties. Names and precedence are those of the library
(sentence-transformers 6, cross_encoder). This file must not know what the settings mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, float32

from puma.errors import CheckpointError, UnsupportedModel
from puma.models.files.source import Entry, read_json

SETTINGS, MODULES, BODY = "config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"
CAUSAL, CLASSES = "ForCausalLM", "ForSequenceClassification"
HEADS = ("lm_head.weight", "embed_tokens.weight")  # the head's matrix, or the table that a tied one shares
HINT = "use a cross-encoder with a Transformer, and perhaps a LogitScore behind it"


@dataclass(frozen=True)
class Judge:
    """What such a folder says; `words` are the tokens of which the first one's logit counts, less the second one's."""

    named: Mapping[str, Any]
    words: tuple[int, ...] = ()

    def settings(self, raw: dict[str, Any]) -> dict[str, Any]:
        """A decoded config.json that says the same; what the folder says counts before its own."""
        own = raw.get("sentence_transformers")
        raw = raw | {"sentence_transformers": (own if isinstance(own, dict) else {}) | dict(self.named)}
        if not self.words:
            return raw
        (name, *_) = raw.get("architectures") or [""]
        if not str(name).endswith(CAUSAL):
            raise UnsupportedModel(f"{MODULES} names a LogitScore, and config.json {name}", HINT)
        classifier = str(name).removesuffix(CAUSAL) + CLASSES
        return raw | {"architectures": [classifier], "id2label": {"0": "score"}, "pad_token_id": None}

    def entries(self, found: Mapping[str, Entry]) -> Mapping[str, Entry]:
        """The tensors of a checkpoint, with a head for one class in place of the one for words."""
        if not self.words:
            return found
        names = [next((name for name in found if name.endswith(head)), None) for head in HEADS]
        head = next((found[name] for name in names if name is not None), None)
        if head is None or max(self.words) >= head.shape[0]:
            raise CheckpointError(f"{MODULES} names words that the model has not", "download the model again")
        shape = (1, *head.shape[1:])
        score = head.remade(lambda: self._row(head), name="score.weight", shape=shape, dtype="F32")
        return {name: entry for name, entry in found.items() if name != names[0]} | {score.name: score}

    def _row(self, head: Entry) -> Tensor:
        rows = head.read()[list(self.words)].to(float32)
        return rows[:1] - rows[1:].sum(0)


def read(folder: Path) -> Judge | None:
    """What a folder says; None for one that is no CrossEncoder's, or names no modules, as the library has it.

    UnsupportedModel for modules or settings that are not implemented, CheckpointError for files that are none.
    """
    if not (folder / MODULES).is_file() or not (folder / SETTINGS).is_file():
        return None
    general = read_json(folder / SETTINGS)
    if general.get("model_type") != "CrossEncoder":
        return None
    named = {"activation_fn": general["activation_fn"]} if isinstance(general.get("activation_fn"), str) else {}
    prompts, default = general.get("prompts"), general.get("default_prompt_name")
    if isinstance(prompts, dict) and isinstance(prompts.get(default), str):
        named["prompt"] = prompts[default]
    words = _words(folder)
    return Judge(named | (_chat(folder) if words else {}), words)


def _words(folder: Path) -> tuple[int, ...]:
    """The tokens that a LogitScore compares; none for a model with a head of its own."""
    path = folder / MODULES
    try:
        named = json.loads(path.read_text(encoding="utf-8"))
        modules = [(str(each["type"]).rpartition(".")[2], str(each["path"])) for each in named]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer"], ["Transformer", "LogitScore"]) or modules[0][1]:
        raise UnsupportedModel(f"{MODULES} names {' and '.join(kinds)}, which is not implemented", HINT)
    if len(modules) == 1:
        return ()
    inside = modules[1][1]
    if Path(inside).is_absolute() or ".." in Path(inside).parts:
        raise CheckpointError(f"{path} leads out of the folder", "download the model again")
    said = read_json(folder / inside / "config.json")
    found = tuple(x for x in (said.get("true_token_id"), said.get("false_token_id")) if x is not None)
    if not found or not all(isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in found):
        raise CheckpointError(f"{folder / inside} names no words by their numbers", "download the model again")
    return found


def _chat(folder: Path) -> dict[str, Any]:
    """How the chat template is asked: by settings of the Transformer module, the library's own if left out."""
    own = read_json(folder / BODY) if (folder / BODY).is_file() else {}
    more = (own.get("processing_kwargs") or {}).get("chat_template") or {}
    unknown = sorted(set(more) - {"add_generation_prompt"})
    if unknown:
        raise UnsupportedModel(f"{BODY} sets {unknown[0]} of the chat template", HINT)
    return {"template": True, "answer": bool(more.get("add_generation_prompt"))}
