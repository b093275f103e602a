"""Rotary positions as config.json says them: flat, nested under either of two names, or nested for kinds of layers.

What wins where several places differ is what the library does (transformers 5, modeling_rope_utils): the nested value,
then the flat one, then the family's default; but the original context at the top level wins over the nested one. This
file must not know what is computed from it.
"""

from __future__ import annotations

import math
from typing import Any

from puma.models.family import refuse

Raw = dict[str, Any]
KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
RENAMED = {
    "llama3": {"low_freq_factor": "low", "high_freq_factor": "high"},
    "yarn": {"beta_fast": "fast", "beta_slow": "slow", "truncate": "whole"},
}


def turned(raw: Raw, theta: float = 1e4, part: float = 1.0, partial: bool = False) -> Raw:
    """The field `rope` of a config, and its context if longrope shortens it; `partial`: a part of a head may turn.

    `theta` and `part` are what a family has where config.json says neither.
    """
    given = {
        "rope_theta": raw.get("rope_theta", theta),
        "partial_rotary_factor": raw.get("partial_rotary_factor", part),
    }
    nested = given | {name: value for name, value in nested_in(raw).items() if value is not None}
    found = scaled(nested, raw, partial, raw.get("original_max_position_embeddings"))
    return {"rope": found} | shortened(found, raw)


def nested_in(raw: Raw) -> Raw:
    """What is said of them in an object of its own."""
    nested = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(nested, dict):
        refuse(f"sets rope_parameters to {nested!r}", "an object only")
    return nested


def shortened(rope: Raw, raw: Raw) -> Raw:
    """With longrope a context no longer than the original one: beyond it all earlier tokens would turn anew."""
    longest, original = raw.get("max_position_embeddings"), rope.get("original")
    if rope.get("scaling") != "longrope" or not isinstance(longest, int) or not isinstance(original, int):
        return {}
    return {"context": min(longest, original)}


def scaled(nested: Raw, raw: Raw, partial: bool = False, original: Any = None) -> Raw:
    """The fields of a Rope, from an object that says all; `original` at the top level of config.json wins."""
    kind, part = nested.get("rope_type", nested.get("type", "default")), nested.get("partial_rotary_factor", 1.0)
    if kind not in KINDS:
        refuse(f"sets rope_type to {kind!r}", f"rope_type = {' or '.join(KINDS)} only")
    inner = sorted(name for name, value in nested.items() if isinstance(value, dict))
    if inner:
        refuse(f"gives {inner[0]} rotary positions of its own", "the same for all layers only, but in Gemma 3")
    if part != 1 and not partial:
        refuse("sets partial_rotary_factor", "partial_rotary_factor = 1 only in this family")
    found: Raw = {"theta": nested.get("rope_theta"), "size": 0 if part == 1 else int(head_dim(raw) * part)}
    if kind in ("default", "dynamic"):  # dynamic changes frequencies beyond the context only, which nothing exceeds
        return found
    found |= {ours: nested[theirs] for theirs, ours in RENAMED.get(kind, {}).items() if nested.get(theirs) is not None}
    longest = raw.get("max_position_embeddings")
    original = original or nested.get("original_max_position_embeddings") or longest
    if kind != "linear":
        found["original"] = original
    factor = nested.get("factor")
    if factor is None and kind in ("yarn", "longrope") and longest and original:
        factor = longest / original
    if factor is None:
        refuse(f"sets rope_type to {kind!r} without its factor", "a factor with it only")
    found |= {"factor": factor, "scaling": kind}
    return (
        found | _attention(kind, nested, factor, original) | (_factors(nested, raw, part) if kind == "longrope" else {})
    )


def _attention(kind: str, nested: Raw, factor: Any, original: Any) -> Raw:
    """What multiplies cosines and sines, unless Rope's own formula says it."""
    given, scales = nested.get("attention_factor"), (nested.get("mscale"), nested.get("mscale_all_dim"))
    if kind not in ("yarn", "longrope") or not all(isinstance(x, int | float) for x in (factor, original)):
        return {}
    if given is not None:
        if not given:
            refuse("sets attention_factor to 0", "numbers above 0 only")
        return {"attention": given}
    if kind == "longrope":
        return {"attention": math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0}
    above, below = (0.1 * float(scale or 0) * math.log(factor) + 1 if factor > 1 else 1.0 for scale in scales)
    return {"attention": above / below} if all(scales) else {}


def _factors(nested: Raw, raw: Raw, part: float) -> Raw:
    """Longrope's factor of each pair; the long ones are for what lies beyond the original context."""
    pairs = int(head_dim(raw) * part) // 2
    for name in ("short_factor", "long_factor"):
        found = nested.get(name)
        if not isinstance(found, list) or len(found) != pairs:
            refuse(f"does not set {name} to {pairs} numbers", "longrope with a factor for each pair only")
    return {"factors": nested["short_factor"]}


def head_dim(raw: Raw) -> int:
    """The size of a head; a config that lacks its parts is refused for them later."""
    sizes = raw.get("hidden_size"), raw.get("num_attention_heads")
    if raw.get("head_dim") or not all(isinstance(size, int) and size > 0 for size in sizes):
        return raw.get("head_dim") or 2
    return raw["hidden_size"] // raw["num_attention_heads"]
