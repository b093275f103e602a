"""LoRA adapters at the owner: what a PEFT folder changes in a checkpoint's tensors, and how each is merged.

As PEFT 0.21 computes it (tuners/lora/layer.py, variants.py; tuners/trainable_tokens): W + scale B A, with DoRA's norms,
heads and embeddings saved whole, biases and single tokens. Merging is lazy, a tensor at a time. It must not know files
or shares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import msgspec
import torch
from msgspec import Meta, Struct
from torch import Tensor

from puma.errors import TensorError, UnsupportedModel
from puma.models.quantised import Headers

PREFIX = "base_model.model."
NO_MATCH = "pass the model that the adapter was trained on, and the whole adapter"
FLOATS = ("F64", "F32", "F16", "BF16")
MERGE = "merge it in peft: model.merge_and_unload().save_pretrained(folder)"
OTHER_BASE = ("pissa", "corda", "olora", "lora_ga", "loftq")  # they begin by changing the base
TRAINED = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector"
    r"|token_adapter\.trainable_tokens_delta)(\.default)?(\.(?P<kind>weight|bias))?"
)
WRAPPED = re.compile(r"\.(base_layer|modules_to_save(\.default)?|token_adapter\.base_layer)(?=\.)")
OWN = ".original_module."  # the base's, beside what takes its place
# What else an adapter_config.json may say without changing what is computed.
HARMLESS = frozenset(
    {
        "auto_mapping", "revision", "inference_mode", "peft_version", "target_modules", "exclude_modules",
        "lora_dropout", "fan_in_fan_out", "modules_to_save", "layers_to_transform", "layers_pattern", "loftq_config",
        "eva_config", "corda_config", "lora_ga_config", "velora_config", "megatron_config", "megatron_core",
        "qalora_group_size", "lora_bias", "runtime_config",
    }
)  # fmt: skip
Rank = Annotated[int, Meta(ge=1)]
Tokens = list[Annotated[int, Meta(ge=0)]]


class Settings(Struct, forbid_unknown_fields=False):
    """What is read of an adapter_config.json."""

    peft_type: str
    r: Rank = 8
    lora_alpha: float = 8.0
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, float] | None = None
    bias: str = "none"
    init_lora_weights: Any = True
    task_type: str | None = None
    base_model_name_or_path: str | None = None
    trainable_token_indices: Tokens | dict[str, Tokens] | None = None
    ensure_weight_tying: bool = False


class Low(NamedTuple):
    """What is added to a weight: scale B A, and where DoRA is used the magnitudes; names of tensors in the adapter."""

    a: str
    b: str
    scale: float
    magnitude: str | None
    by_columns: bool  # an embedding, as wide as the inputs of its table's transpose


@dataclass
class Change:
    """All that an adapter does to one module's tensor: another tensor in its place, then what is added to it."""

    whole: str | None = None
    low: Low | None = None
    plus: tuple[str, float] | None = None  # a bias, and its scale
    rows: tuple[str, tuple[int, ...]] | None = None  # single tokens

    @property
    def parts(self) -> list[str]:
        """The tensors of the adapter that it takes."""
        low = [part for part in (self.low.a, self.low.b, self.low.magnitude) if part] if self.low else []
        others = [self.whole, self.plus[0] if self.plus else None, self.rows[0] if self.rows else None]
        return low + [part for part in others if part]


@dataclass(frozen=True)
class Adapter:
    """A checked adapter: what it changes, by the names that its own base calls tensors by."""

    name: str
    settings: Settings
    headers: Headers
    changes: Mapping[str, Change] = field(repr=False)


def parse(name: str, raw: Mapping[str, Any], headers: Headers) -> Adapter:
    """An adapter from its adapter_config.json and its tensors; UnsupportedModel if it does what is not implemented."""
    try:
        settings = msgspec.convert({key: value for key, value in raw.items() if value is not None}, Settings)
    except msgspec.ValidationError as error:
        raise UnsupportedModel(f"adapter_config.json: {error}", "check the adapter's folder") from error
    _check(raw, settings)
    changes: dict[str, Change] = {}
    found: dict[str, dict[str, str]] = {}
    for stored in headers:
        bare = stored.removeprefix(PREFIX)
        if OWN in bare:
            continue
        trained = TRAINED.fullmatch(bare)
        if trained is None:
            changes.setdefault(WRAPPED.sub("", bare), Change()).whole = stored
        else:
            part = trained["part"] + (".bias" if trained["kind"] == "bias" else "")
            found.setdefault(trained["module"], {})[part] = stored
    for module, parts in found.items():
        _trained(changes, module, parts, settings, headers)
    if not changes:
        raise TensorError(f"the adapter {name} holds no tensor", NO_MATCH)
    return Adapter(name, settings, headers, changes)


def _check(raw: Mapping[str, Any], settings: Settings) -> None:
    """Refuse what would be merged wrongly."""
    kind = settings.peft_type
    if kind.upper() != "LORA":
        raise UnsupportedModel(f"the adapter is of the kind {kind}", f"puma reads LORA; {MERGE}")
    begun = settings.init_lora_weights
    if isinstance(begun, str) and begun.lower().startswith(OTHER_BASE):
        raise UnsupportedModel(f"the adapter began by changing its base (init_lora_weights = {begun})", MERGE)
    known = HARMLESS | set(Settings.__struct_fields__)
    for name, value in raw.items():
        if name not in known and value:
            raise UnsupportedModel(f"adapter_config.json sets {name}", f"puma knows no {name}; {MERGE}")


def _trained(
    changes: dict[str, Change], module: str, parts: Mapping[str, str], settings: Settings, headers: Headers
) -> None:
    """What was trained beside one module."""
    weight = changes.setdefault(f"{module}.weight", Change())
    for a, b, by_columns in (("lora_A", "lora_B", False), ("lora_embedding_A", "lora_embedding_B", True)):
        if (a in parts) != (b in parts):
            raise TensorError(f"the adapter has one of {a} and {b} of {module} only", NO_MATCH)
        if a in parts:
            rank = headers[parts[a]].shape[0]
            wanted = _by_pattern(settings.rank_pattern, module, settings.r)
            if rank != wanted or headers[parts[b]].shape[-1] != rank:
                raise TensorError(f"the adapter has rank {rank} at {module}, expected {wanted}", NO_MATCH)
            alpha = _by_pattern(settings.alpha_pattern, module, settings.lora_alpha)
            scale = alpha / (rank**0.5 if settings.use_rslora else rank)
            magnitude = parts.get("lora_magnitude_vector")
            if (magnitude is not None) != settings.use_dora:
                raise TensorError(f"the adapter's use_dora and its tensors of {module} disagree", NO_MATCH)
            weight.low = Low(parts[a], parts[b], scale, magnitude, by_columns)
            if "lora_B.bias" in parts:
                changes.setdefault(f"{module}.bias", Change()).plus = parts["lora_B.bias"], scale
    if "token_adapter.trainable_tokens_delta" in parts:
        stored = parts["token_adapter.trainable_tokens_delta"]
        tokens = _tokens(settings, module)
        if len(tokens) != headers[stored].shape[0]:
            raise TensorError(f"the adapter names {len(tokens)} tokens of {module}", NO_MATCH)
        weight.rows = stored, tokens
    if not weight.parts:
        raise TensorError(
            f"the adapter has {', '.join(sorted(parts))} of {module}, and nothing to go with it", NO_MATCH
        )


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern that is a module's name or its end; as peft's get_pattern_key finds it."""
    for key, value in (patterns or {}).items():
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        except re.error as error:
            raise UnsupportedModel(f"adapter_config.json names modules by {key!r}: {error}", NO_MATCH) from error
    return default


def _tokens(settings: Settings, module: str) -> tuple[int, ...]:
    """The tokens of which an embedding's rows were trained."""
    named = settings.trainable_token_indices or []
    if isinstance(named, dict):
        named = next((tokens for key, tokens in named.items() if module == key or module.endswith(f".{key}")), [])
    return tuple(named)


def check_base(adapter: Adapter, hub: str) -> None:
    """TensorError if an adapter names another base on the hub; quantised copies have the base's name and a suffix."""
    base = adapter.settings.base_model_name_or_path or ""
    ours, theirs = (name.rstrip("/").lower() for name in ("/".join(hub.split("/")[:2]), base))
    ours, theirs = ours.rpartition("/")[2], theirs.rpartition("/")[2]
    if theirs and not (ours.startswith(theirs) or theirs.startswith(ours)):
        raise TensorError(f"the adapter {adapter.name} was trained on {base}, not on {hub}", NO_MATCH)


# What of it belongs to a model.


def check_fits(
    adapter: Adapter, changes: Mapping[str, Change], shapes: Mapping[str, tuple[int, ...]], transposed: Container[str]
) -> None:
    """TensorError, by name, unless the model has every tensor that is changed, in the shape that the changes have.

    `transposed` are the matrices that the model's checkpoints store (in, out).
    """
    for name, change in changes.items():
        if name not in shapes:
            raise TensorError(f"the adapter {adapter.name} changes {name}, which the model has not", NO_MATCH)
        for part, shape in _shapes(adapter, change, shapes[name], name in transposed):
            found = adapter.headers[part]
            if found.shape != shape or found.kind not in FLOATS:
                what = f"the adapter {adapter.name} holds {part}, {found.kind} of shape {list(found.shape)}"
                raise TensorError(f"{what}, expected {list(shape)}", NO_MATCH)
        if change.rows and max(change.rows[1], default=0) >= shapes[name][0]:
            raise TensorError(f"the adapter {adapter.name} trains a token that {name} has not", NO_MATCH)


def _shapes(
    adapter: Adapter, change: Change, shape: tuple[int, ...], transposed: bool
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The shape that each part must have for a tensor of this shape."""
    if change.whole:
        yield change.whole, shape
    if change.plus:
        yield change.plus[0], shape
    if change.rows:
        yield change.rows[0], (len(change.rows[1]), *shape[1:])
    if change.low:
        out, size = shape[::-1] if transposed or change.low.by_columns else shape
        rank = adapter.headers[change.low.a].shape[0]
        yield change.low.a, (rank, size)
        yield change.low.b, (out, rank)
        if change.low.magnitude:
            yield change.low.magnitude, (out,)


def merged(change: Change, transposed: bool, base: Callable[[], Tensor], read: Callable[[str], Tensor]) -> Tensor:
    """One float32 tensor of the model as the adapter changes it; `base` gives the model's own, if it is needed."""
    found = read(change.whole) if change.whole else base()
    if change.plus:
        found = found + change.plus[1] * read(change.plus[0])
    if change.low:
        found = _lowered(found, change.low, transposed or change.low.by_columns, read)
    if change.rows:
        found = found.index_copy(0, torch.tensor(change.rows[1]), read(change.rows[0]))
    return found


def _lowered(weight: Tensor, low: Low, turned: bool, read: Callable[[str], Tensor]) -> Tensor:
    """W + scale B A, with DoRA m (W + scale B A) / |W + scale B A| by outputs; `turned` matrices are (in, out).

    DoRA: arXiv:2402.09353, equation 5.
    """
    a, b = read(low.a), read(low.b)
    left, right = (a.T, b.T) if turned else (b, a)
    found = torch.addmm(weight, left, right, alpha=low.scale)
    if low.magnitude is None:
        return found
    along = 0 if turned else 1
    norm = torch.linalg.vector_norm(found, dim=along, keepdim=True)
    return found.mul_(read(low.magnitude).unsqueeze(along) / norm)
