"""What people do to the names in a file: training and compiling wrap them, saving drops, doubles and shares them.

A change takes a state, as transformers saved it, its model's class and its config, and gives another; None where it
has no meaning. What transformers cannot find under wrapped names we may: it then reads the file before they were.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from tests.models.library.settings import BASES, Case, classes

State = dict[str, torch.Tensor]
Change = Callable[[State, Any], State | None]


def renamed(state: State, name: Callable[[str], str]) -> State:
    """The same tensors by other names."""
    return {name(old): tensor for old, tensor in state.items()}


def before(prefix: str) -> Change:
    """Something before all names."""
    return lambda state, model: renamed(state, lambda name: prefix + name)


def within(state: State, model: Any) -> State | None:
    """A text model in one that sees, as it is laid out now."""
    base = f"{model.base_model_prefix}."
    if not any(name.startswith(base) for name in state):
        return None
    return renamed(
        state, lambda name: name.replace(base, "model.language_model.", 1) if name.startswith(base) else name
    )


def bare(state: State, model: Any) -> State:
    """Saved from the model below the head."""
    return renamed(state, lambda name: name.removeprefix(f"{model.base_model_prefix}."))


def headed(state: State, model: Any) -> State:
    """Saved from a model with a head, the head left out."""
    base = f"{model.base_model_prefix}."
    if type(model).__name__.endswith("Model") and not any(name.startswith(base) for name in state):
        return renamed(state, lambda name: base + name)
    return state


def compiled_inside(state: State, model: Any) -> State:
    """One module of it compiled."""
    return renamed(state, lambda name: name.replace(".", "._orig_mod.", 1))


def gamma(state: State, model: Any) -> State:
    """The first names of LayerNorm."""
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return renamed(state, lambda name: next((name.replace(a, b) for a, b in old.items() if a in name), name))


def further(state: State, model: Any) -> State | None:
    """A layer more than the config counts."""
    last, begins = model.config.num_hidden_layers - 1, "block." if model.config.model_type == "t5" else "."
    here, there = f"{begins}{last}.", f"{begins}{last + 1}."
    added = {name.replace(here, there, 1): tensor.clone() for name, tensor in state.items() if here in name}
    return state | added if added else None


def pairs(model: Any) -> dict[str, str]:
    """Which tensor is said to be which other, by the names in the model."""
    return {} if not model.all_tied_weights_keys else dict(model.all_tied_weights_keys)


def twice(state: State, model: Any) -> State | None:
    """What is shared, stored once for each that shares it."""
    whole = model.state_dict()
    return state | {name: whole[name].clone() for name in pairs(model)} if pairs(model) else None


def untied(state: State, model: Any) -> State | None:
    """Said to be shared, and not the same."""
    whole = model.state_dict()
    return state | {name: whole[name] + 0.3 for name in pairs(model)} if pairs(model) else None


def half_untied(state: State, model: Any) -> State | None:
    """One of several that are said to be shared is not the same."""
    names, whole = sorted(pairs(model)), model.state_dict()
    return state | {names[-1]: whole[names[-1]] + 0.3} if names else None


def head_alone(state: State, model: Any) -> State | None:
    """Of what is shared, the one that is written last."""
    whole, shared = model.state_dict(), pairs(model)
    rest = {name: tensor for name, tensor in state.items() if name not in shared.values()}
    return rest | {name: whole[name].clone() for name in shared} if len(rest) < len(state) else None


def stray(state: State, model: Any) -> State:
    """What the library leaves aside by rule."""
    kinds = sorted(model._keys_to_ignore_on_load_unexpected or ())
    named = [f"{model.base_model_prefix}.h.0.{kind}".replace("\\", "") for kind in kinds if not kind.startswith("dec")]
    named += [kind.replace("\\", "") for kind in kinds if kind.startswith("decoder.block")]
    buffers = [name.rpartition(".")[0] + "." + name.rpartition(".")[2] for name, _ in model.named_buffers()]
    buffers = [name for name in buffers if name.endswith(("position_ids", "inv_freq"))]
    return state | {name: torch.zeros(2) for name in named + buffers}


CHANGES: dict[str, Change] = {
    "as it is": lambda state, model: state,
    "module": before("module."),
    "compiled": before("_orig_mod."),
    "both": before("_orig_mod.module."),
    "language_model": before("language_model."),
    "within": within,
    "bare": bare,
    "headed": headed,
    "compiled inside": compiled_inside,
    "gamma": gamma,
    "further": further,
    "twice": twice,
    "untied": untied,
    "half untied": half_untied,
    "head alone": head_alone,
    "stray": stray,
    "missing": lambda state, model: dict(sorted(state.items())[1:]),
}


WRAPPING = ("module", "compiled", "both", "language_model", "within", "compiled inside")  # last, and not theirs


@dataclass(frozen=True)
class Renamed:
    """A class, whether its config ties, and changes one after the other."""

    case: Case
    changes: tuple[str, ...]


def each() -> Iterator[Renamed]:
    """Every change of every class."""
    for model_type in BASES:
        for architecture in classes(model_type):
            for change in CHANGES:
                yield Renamed(tie(model_type, architecture, None), (change,))


def tie(model_type: str, architecture: str, tied: bool | None) -> Case:
    """A class with its head tied or not, or as its config class has it."""
    return Case(model_type, architecture, () if tied is None else (("tie_word_embeddings", tied),))


def drawn(seed: int) -> Renamed:
    """One or two changes of a class, tied or not."""
    choice = random.Random(seed)
    model_type = choice.choice(list(BASES))
    case = tie(model_type, choice.choice(classes(model_type)), choice.choice([None, True, False]))
    return Renamed(case, tuple(choice.sample(list(CHANGES), k=choice.choice([1, 1, 2]))))
