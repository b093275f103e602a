"""Quantised checkpoints at their owner: which tensors of a file are parts of one, and how one float32 matrix is made.

A file for each way of quantising; config.json's quantization_config says which is meant. What a file holds is decoded
tensor by tensor when it is looked up. This room must not know files, families or shares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from puma.errors import TensorError, UnsupportedModel
from puma.models.quantised import awq, bitsandbytes, compressed, fp8, gptq, mxfp4
from puma.models.quantised.packed import ORIGINAL, Header, Headers, Packed, Read, Settings

__all__ = ["Found", "Header", "Headers", "Packed", "Read", "Settings", "find", "settings_in"]


class Method(NamedTuple):
    """A way of quantising: how its modules are found, whether the settings except one, what is left aside."""

    find: Callable[[Settings, Headers, Read], Iterator[tuple[str, Packed]]]
    excepted: Callable[[Settings, str], bool]
    ignored: str


class Found(NamedTuple):
    """Tensors by their ordinary names, and the names of all stored tensors that are thereby accounted for."""

    tensors: dict[str, Packed]
    spent: frozenset[str]


FILES = {
    "gptq": gptq,
    "awq": awq,
    "compressed-tensors": compressed,
    "fp8": fp8,
    "bitsandbytes": bitsandbytes,
    "mxfp4": mxfp4,
}
METHODS = {name: Method(file.find, file.excepted, file.IGNORED) for name, file in (FILES | {"fbgemm_fp8": fp8}).items()}


def settings_in(raw: dict[str, Any]) -> dict[str, Any]:
    """What config.json says of quantising; {} if nothing. UnsupportedModel if it is a way that is not implemented."""
    settings = raw.get("quantization_config") or raw.get("compression_config") or {}
    if not isinstance(settings, dict):
        raise UnsupportedModel("config.json: quantization_config is no object", "check the folder's config.json")
    if not settings:
        return {}
    default = "bitsandbytes" if settings.get("load_in_4bit") or settings.get("load_in_8bit") else None
    method = settings.get("quant_method") or ("compressed-tensors" if "config_groups" in settings else default)
    if method not in METHODS:
        raise UnsupportedModel(
            f"the checkpoint is quantised ({method or 'by an unknown method'})",
            f"{ORIGINAL}, or one that is quantised by {', '.join(METHODS)}",
        )
    return settings | {"quant_method": method}


def _read(method: Method, settings: Settings, headers: Headers, read: Read) -> Iterator[tuple[str, Packed, bool]]:
    """What the method finds and whether the settings except it, if they are of the kinds that it expects."""
    try:
        for module, packed in method.find(settings, headers, read):
            yield module, packed, method.excepted(settings, module)
    except (TypeError, AttributeError, ValueError, LookupError) as error:
        what = f"config.json has a quantization_config that cannot be read ({error})"
        raise UnsupportedModel(what, "check the folder's config.json") from error


def find(settings: Settings, headers: Headers, read: Read) -> Found:
    """The quantised tensors among those that are stored; `read` gives the few whose numbers say a shape.

    TensorError if parts are missing or do not fit, or a module is quantised that quantization_config excepts;
    UnsupportedModel if a variant is not implemented.
    """
    method = METHODS[settings["quant_method"]]
    tensors: dict[str, Packed] = {}
    for module, packed, excepted in _read(method, settings, headers, read):
        if excepted:
            raise TensorError(
                f"{module} is quantised, though quantization_config says that it is not",
                "weights and config.json do not belong together",
            )
        tensors[module if packed.whole else f"{module}.weight"] = packed
    if not tensors:
        what = f"config.json says that the weights are quantised ({settings['quant_method']}), but none is"
        raise TensorError(what, "leave quantization_config out of config.json, if they are plain numbers")
    ignored = re.compile(method.ignored)
    spent = {part for packed in tensors.values() for part in packed.parts}
    return Found(tensors, frozenset(spent | {name for name in headers if ignored.fullmatch(name)}))
