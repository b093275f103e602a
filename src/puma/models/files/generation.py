"""What a checkpoint says of how its next tokens are chosen: generation_config.json, or without one config.json.

Only what `generate` of transformers 5 would heed is kept, and only where it changes anything; it travels with the model
to clients, who follow it or say that they do not. This file must not know how.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

FILE = "generation_config.json"
RULES = (  # of logits: a client who sees them can follow these
    "sequence_bias", "encoder_repetition_penalty", "repetition_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "min_length", "min_new_tokens", "forced_bos_token_id",
    "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip
DRAWN = "do_sample"  # else these count for nothing
CHANCES = ("temperature", "top_k", "top_p")
OTHER_CHANCES = ("min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
BEAMS = ("num_beams", "num_beam_groups", "diversity_penalty")
SEARCHES = (*BEAMS, "forced_eos_token_id")  # what a beam search here is about
OTHERS = (
    "forced_eos_token_id", "exponential_decay_length_penalty", "guidance_scale", "watermarking_config",
    "token_healing", "stop_strings", "max_time", "penalty_alpha", "dola_layers", "constraints", "force_words_ids",
)  # fmt: skip
HEARD = ("max_initial_timestamp_index",)  # of sound that is written down with times
NAMES = (*RULES, DRAWN, *CHANCES, *OTHER_CHANCES, *BEAMS, *OTHERS, *HEARD)
ONE = (  # what leaves everything as it is
    "encoder_repetition_penalty", "repetition_penalty", "num_beams", "num_beam_groups", "top_p", "typical_p",
    "temperature", "guidance_scale",
)  # fmt: skip
ZERO = (
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens", "top_k", "epsilon_cutoff",
    "eta_cutoff", "diversity_penalty", "penalty_alpha",
)  # fmt: skip


def kept(said: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change which tokens are chosen."""
    found = {name: said[name] for name in NAMES if name in said and not _neutral(name, said[name])}
    lost = () if found.get(DRAWN) else (*CHANCES, *OTHER_CHANCES)
    return {name: value for name, value in found.items() if name not in lost}


def _neutral(name: str, value: Any) -> bool:
    """Whether a setting says what holds without it."""
    return (
        value is None or value is False or value == [] or (name in ONE and value == 1) or (name in ZERO and not value)
    )


def public(said: Mapping[str, Any]) -> dict[str, Callable[[], bytes]]:
    """The same as a file, if there is anything to say."""
    found = kept(said)
    return {FILE: lambda: json.dumps(found, sort_keys=True).encode()} if found else {}
