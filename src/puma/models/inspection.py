"""What a config.json alone tells: which parts of the model are implemented, by name, and what would be refused and why.

It must not know weights: a checkpoint's tensors may still be refused for what they hold.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from puma.errors import UnsupportedModel
from puma.models.architecture import Inputs
from puma.models.architectures import architecture, heads, inputs
from puma.models.config import Config
from puma.models.families import FAMILIES, named, of_text, started

MOST = 20  # refusals that are looked for
SETTING = re.compile(r"\bsets (\w+)\b")
QUESTIONS = {
    "generates": "text, token by token",
    "scores": "the score of each token of a text",
    "predicts": "masked tokens",
}


@dataclass(frozen=True)
class Inspection:
    """What is known of a model by its config.json: parts with what is computed there, questions it takes, refusals."""

    kind: str  # its class
    config: Config | None  # None where nothing can be computed
    parts: dict[str, str]
    questions: list[str]
    refused: list[UnsupportedModel]


def inspected(raw: dict[str, Any]) -> Inspection:
    """Look at a decoded config.json, and behind each refusal at the rest of it."""
    raw = of_text(raw)
    kind, refused = named(raw), list[UnsupportedModel]()
    if kind not in FAMILIES:
        near = ", ".join(get_close_matches(kind, FAMILIES, 3, 0.0))
        hint = f"puma implements {len(FAMILIES)} classes, such as {near}; docs/models.md lists them"
        refused.append(UnsupportedModel(f"config.json names {kind}", hint))
        return Inspection(kind, None, {}, [], refused)
    family, left, config = FAMILIES[kind], dict(raw), None
    while config is None and len(refused) < MOST:
        try:
            config = family.read(started(left, {}), set())
        except UnsupportedModel as error:
            refused.append(error)
            setting = SETTING.search(error.message)
            if setting is None or left.pop(setting[1], None) is None:
                break
    if config is None:
        return Inspection(kind, None, {}, [], refused)
    return Inspection(kind, config, parts(config), questions(config), refused)


def parts(config: Config) -> dict[str, str]:
    """The parts of a model of this config, and what is computed there."""
    read, shapes = inputs(config), architecture(config).plain(config)
    found = {
        "architecture": f"{architecture(config).kind}, {_layers(config)}",
        "parameters": f"{sum(map(math.prod, shapes.values())):,}",
        "reads": _reads(read),
        "context": f"{read.context:,}"
        + (f", and {read.answers or read.context:,} for an answer" if read.apart else ""),
        "attention": _attention(config),
        "positions": _positions(config),
        "norms": _norms(config),
        "mlp": _mlp(config),
    }
    caps = {"scores": getattr(config, "attention_cap", 0), "logits": getattr(config, "logit_cap", 0)}
    if any(caps.values()):
        found["soft caps"] = ", ".join(f"{name} at {cap:g}" for name, cap in caps.items() if cap)
    return {name: what for name, what in found.items() if what}


def questions(config: Config) -> list[str]:
    """What it can be asked."""
    known = heads(config)
    found = [words for name, words in QUESTIONS.items() if getattr(known, name)]
    if known.labels:
        of = "each token" if known.each_token else "a text" if inputs(config).tokenized else "an image"
        found.append(f"which of {len(known.labels)} classes {of} is of")
    return [*found, f"states{f', and a vector by {known.pooling.words}' if known.pooling.modes else ''}"]


def _reads(read: Inputs) -> str:
    """What it is given."""
    if read.kind == "audio":
        return f"sound, {read.rows:,} rows of {read.width} bands"
    return f"tokens, {read.width:,} different ones" if read.tokenized else f"images as {read.rows} patches"


def _layers(config: Config) -> str:
    counts = {stack: getattr(config, stack) for stack in architecture(config).stacks}
    return " and ".join(f"{count} {stack.replace('_', ' ')}" for stack, count in counts.items())


def _attention(config: Config) -> str:
    keys = getattr(config, "kv_heads", config.heads)
    size = getattr(config, "head_dim", 0)
    found = f"{config.heads} heads" + (f" of {size}" if size else "")
    found += f", keys of {keys}" if keys != config.heads else ""
    window, local = getattr(config, "window", 0), 0
    if window and (seen := getattr(config, "local", None)):
        local = sum(map(seen, range(config.layers)))
    elif window:
        local = config.layers - len(getattr(config, "full", ()))
    found += f"; {local} layers see a window of {window:,}" if local else ""
    layers: Any = config if getattr(config, "delta", None) else None
    remembering = sum(map(layers.recurrent, range(layers.layers))) if layers else 0
    return found + (f"; {remembering} layers have a memory instead" if remembering else "")


def _positions(config: Config) -> str:
    rope = getattr(config, "rope", None)
    if rope is None:
        apart = getattr(config, "distances", 0) or hasattr(config, "buckets")
        found = "a number for each distance, added to scores" if apart else ""
        found = found or ("disentangled" if getattr(config, "disentangled", None) else "")
        learned = getattr(config, "learned", not apart)
        own = "learned" if getattr(config, "positions", "learned") == "learned" else "sines and cosines"
        return ", ".join(filter(None, [own if learned else "", found]))
    scaling = "" if rope.scaling == "default" else f", {rope.scaling}"
    return f"rotary, base {rope.theta:g}{scaling}" + (f", {rope.size} places of a head" if rope.size else "")


def _mlp(config: Config) -> str:
    gated = f"{config.activation}{', gated' if getattr(config, 'gated', False) else ''}"
    experts = mixture(config)
    own: Any = config
    dense = sum(not own.mixed(i) for i in range(own.layers)) if experts else own.layers
    layers = f" in {dense} layers" if experts else ""
    plain = f"{config.intermediate_size:,} wide{layers}" if dense else ""
    return ", ".join(filter(None, [gated, plain, experts]))


def mixture(config: Config) -> str:
    """What a mixture of experts is made of, and how much more of it is computed than a token takes; else nothing."""
    experts, size = getattr(config, "experts", 0), getattr(config, "expert_size", 0)
    if not experts:
        return ""
    chosen, shared = config.chosen, config.shared_size  # type: ignore[union-attr]
    times = (experts * size + shared) / (chosen * size + shared)
    one = f" and one of {shared:,} that all take" if shared else ""
    computed = f"all are computed: {times:.0f} times as much"
    return f"{experts} experts of {size:,}{one}; a token takes {chosen}, and {computed}"


def _norms(config: Config) -> str:
    kind = {"rms": "RMSNorm", "layer": "LayerNorm"}.get(getattr(config, "norm", ""), "")
    more = {"head_norms": "of queries and keys, too", "post_norms": "before and after each half of a layer"}
    return ", ".join(filter(None, [kind, *(words for name, words in more.items() if getattr(config, name, False))]))
