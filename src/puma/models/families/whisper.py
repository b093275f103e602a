"""Checkpoints of Whisper, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from typing import Any

from puma.models.architectures.seq2seq import SEQ2SEQ
from puma.models.families.bart import FIELDS, M, begins, choosing, modules
from puma.models.families.defaults import ALIASES, DEFAULTS
from puma.models.family import Family, Names, chosen

Raw = dict[str, Any]
OWN = {"context": "max_source_positions", "answers": "max_target_positions"}
IGNORED = r"(model\.)?encoder\.embed_positions\.bias|proj_out\..*"
LANGUAGES = 51865  # tokens at least of a model that knows languages and tasks


def _names() -> Names:
    found = {theirs: ours for theirs, ours in modules().items() if theirs.startswith((f"{M}encoder", f"{M}decoder"))}
    found |= {f"{M}decoder.embed_tokens": "shared", "proj_out": "lm_head"}
    found |= {f"{M}encoder.{name}": f"stem.{name}" for name in ("conv1", "conv2")}
    return Names(found, prefix=M, ignored=IGNORED)


def settings(raw: Raw, tensors: set[str]) -> Raw:
    """Whisper: what only English models lack is a language and a task before an answer."""
    spoken = raw.get("is_multilingual")
    spoken = raw["vocab_size"] >= LANGUAGES if spoken is None else spoken
    fixed = {"pre_norms": True, "embedded_norm": False, "key_bias": False}
    heard = {"bands": raw["num_mel_bins"], "spoken": spoken}
    found = fixed | {"activation": chosen(raw, "activation_function", "gelu"), "sound": heard}
    return found | choosing(raw) | {"starts": begins(raw)}


def families() -> dict[str, Family]:
    """Whisper with its head."""
    return {
        "WhisperForConditionalGeneration": Family(
            SEQ2SEQ, settings, _names(), FIELDS | OWN, model_type="whisper", defaults=DEFAULTS["whisper"],
            aliases=ALIASES["whisper"],
        )
    }  # fmt: skip
