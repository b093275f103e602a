"""A folder of sentence-transformers: what its modules.json says comes behind the model's last states, and how texts are
put to it.

Names and defaults are those of the library (sentence-transformers 6, sentence_transformer/modules and base/modules).
What would give another vector than the library's is refused. This file must not know configs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from tokenizers import Tokenizer, normalizers

from puma.errors import CheckpointError, UnsupportedModel
from puma.models.files import safetensors
from puma.models.files.source import Entry, read_json
from puma.models.pooling import EMBED, Dense, Pooling
from puma.models.reading.wording import Wording

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
MODES = {  # as older versions write them, in the order in which several lie side by side
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
TRANSFORMER = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
ACTIVATIONS = {
    "Tanh": "tanh", "Identity": "", "ReLU": "relu", "GELU": "gelu", "SiLU": "silu", "Sigmoid": "sigmoid",
}  # fmt: skip
WIDEST = 1 << 24  # a longer limit is none
HINT = "use a model that pools states, and then has Dense modules and at most a Normalize"


class Sentences(NamedTuple):
    """What such a folder says: where the model itself lies, what comes behind its states and where the matrices of that
    lie, how a client words texts, whether they are lowered first, and whether the model's own head is left aside.
    """

    body: Path
    pooling: Pooling
    dense: tuple[Path, ...]
    wording: Wording
    lower: bool
    bare: bool

    def entries(self) -> dict[str, Entry]:
        """The matrices, by the names that they have in every model."""
        found = dict[str, Entry]()
        for i, (folder, dense) in enumerate(zip(self.dense, self.pooling.dense, strict=True)):
            path = folder / "model.safetensors"
            if not path.is_file():
                hint = "SentenceTransformer(folder).save(folder) in sentence-transformers writes it anew"
                raise CheckpointError(f"{folder} holds no model.safetensors", hint)
            held = safetensors.entries([path])
            for kind in ("weight", "bias") if dense.bias else ("weight",):
                if f"linear.{kind}" not in held:
                    raise CheckpointError(f"{path} holds no linear.{kind}", "download the model again")
                found[f"{EMBED}dense.{i}.{kind}"] = replace(held[f"linear.{kind}"], linear=False)
        return found


def read(folder: Path) -> Sentences | None:
    """What a folder says of sentences; None where it says nothing, or is one of a cross-encoder.

    UnsupportedModel for modules that are not implemented, CheckpointError for files that are none.
    """
    general = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    if not (folder / MODULES).is_file() or general.get("model_type") == "CrossEncoder":
        return None
    body, modes, whole, dense, paths, normalised = folder, (), True, list[Dense](), list[Path](), False
    for kind, path in _modules(folder):
        settings = read_json(path / "config.json") if kind != "Transformer" and (path / "config.json").is_file() else {}
        _check(kind, settings, bool(modes), normalised)
        if kind == "Transformer":
            body = path
        elif kind == "Pooling":
            modes, whole = _modes(settings), settings.get("include_prompt") is not False
        elif kind == "Dense":
            dense.append(_dense(settings))
            paths.append(path)
        normalised = normalised or kind == "Normalize"
    own = next((read_json(body / name) for name in TRANSFORMER if (body / name).is_file()), {})
    wording = _wording(general, own, body) | {"normalised": normalised, "whole": whole}
    task = own.get("transformer_task", "feature-extraction")
    return Sentences(
        body=body, pooling=_made(Pooling, {"modes": modes, "dense": dense}), dense=tuple(paths),
        wording=_made(Wording, wording), lower=own.get("do_lower_case") is True,
        bare=bool(modes) and task == "feature-extraction",
    )  # fmt: skip


def lowered(content: Callable[[], bytes]) -> bytes:
    """A tokenizer.json that lowers its texts before anything else, unless it does so already."""
    before = content()
    tokenizer = Tokenizer.from_buffer(before)
    steps = tokenizer.normalizer
    each: list[Any] = [] if steps is None else [steps]
    if isinstance(steps, normalizers.Sequence):
        each = [steps[i] for i in range(len(steps))]  # type: ignore[index,arg-type]
    if any(isinstance(step, normalizers.Lowercase) for step in each):
        return before
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *each])
    return tokenizer.to_str().encode()


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """The last part of each module's class, and where it lies."""
    path = folder / MODULES
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error
    if not isinstance(found, list):
        raise CheckpointError(f"{path} holds something else than it should", "download the model again")
    modules = list[tuple[str, Path]]()
    for module in found:
        kind, inside = (module.get(key) for key in ("type", "path")) if isinstance(module, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(inside, str) or _leads_out(inside):
            raise CheckpointError(f"{path} has a module without a type or a folder", "download the model again")
        if not kind.startswith("sentence_transformers."):
            raise UnsupportedModel(f"{path} names {kind}, which is code of the model's own", HINT)
        modules.append((kind.rpartition(".")[2], folder / inside))
    return modules


def places(folder: Path) -> list[str]:
    """The folders inside a model's that its modules lie in; none where it has no modules.json."""
    found = _modules(folder) if (folder / MODULES).is_file() else []
    return [str(path.relative_to(folder)) for _, path in found if path != folder]


def _leads_out(inside: str) -> bool:
    return Path(inside).is_absolute() or ".." in Path(inside).parts


def _check(kind: str, settings: Mapping[str, Any], pooled: bool, normalised: bool) -> None:
    """UnsupportedModel for a module that is not implemented, where it stands or as it is set."""
    if kind not in ("Transformer", "Pooling", "Dense", "Normalize", "Dropout"):
        raise UnsupportedModel(f"{MODULES} names a module {kind}, which is not implemented", HINT)
    if normalised and kind not in ("Normalize", "Dropout"):
        raise UnsupportedModel(f"{MODULES} names a {kind} behind a Normalize, which is not implemented", HINT)
    if kind == "Pooling" and pooled:
        raise UnsupportedModel(f"{MODULES} names two Poolings, which is not implemented", HINT)
    if kind == "Dense" and not pooled:
        raise UnsupportedModel(f"{MODULES} names a Dense before a Pooling, which is not implemented", HINT)
    for name in ("module_input_name", "module_output_name"):
        if settings.get(name) not in (None, "sentence_embedding"):
            raise UnsupportedModel(f"a module {kind} sets {name} to {settings[name]!r}, which is not implemented", HINT)
    if settings.get("use_residual"):
        raise UnsupportedModel(f"a module {kind} sets use_residual, which is not implemented", HINT)


def _modes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that are set; of the older way of saying it the mean, where none is."""
    named = settings.get("pooling_mode")
    if named is None:
        return tuple(mode for key, mode in MODES.items() if settings.get(key)) or ("mean",)
    modes = tuple(named) if isinstance(named, list) else (named,)
    unknown = [mode for mode in modes if mode not in MODES.values()]
    if unknown or not modes:
        raise UnsupportedModel(
            f"the model pools by {unknown[0] if unknown else 'nothing'}, which is not implemented", HINT
        )
    return modes


def _dense(settings: Mapping[str, Any]) -> Dense:
    named = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = ACTIVATIONS.get(str(named).rpartition(".")[2]) if str(named).startswith("torch.nn.") else None
    if activation is None:
        what = f"a module Dense sets activation_function to {named!r}, which is not implemented"
        raise UnsupportedModel(what, f"use a model with one of {', '.join(ACTIVATIONS)} there")
    bias = settings.get("bias", True)
    return _made(Dense, {"outputs": settings.get("out_features"), "bias": bias, "activation": activation})


def _wording(general: Mapping[str, Any], own: Mapping[str, Any], body: Path) -> dict[str, Any]:
    """Prompts, the longest text and how many numbers of a vector are kept."""
    path = body / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    longest = own.get("max_seq_length") or settings.get("model_max_length") or 0
    longest = 0 if isinstance(longest, int | float) and longest > WIDEST else longest
    prompts, default = general.get("prompts") or {}, general.get("default_prompt_name")
    if default is not None and (not isinstance(prompts, dict) or default not in prompts):
        raise CheckpointError(f"{SETTINGS} names a prompt {default!r} that it has not", "download the model again")
    return {
        "prompts": prompts, "default": default or "", "longest": longest,
        "cut": settings.get("truncation_side", "right"), "dimensions": general.get("truncate_dim") or 0,
    }  # fmt: skip


def _made(kind: Any, fields: Mapping[str, Any]) -> Any:
    """A struct of what files say."""
    try:
        return msgspec.convert(msgspec.to_builtins(fields), kind)
    except msgspec.ValidationError as error:
        what = f"the settings of sentences have another kind than they should ({error})"
        raise CheckpointError(what, "download the model again") from error
