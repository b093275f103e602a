"""A LoRA adapter kept apart from its base: two small matrices beside each that it changes, folded as that one is.

What folding did to a matrix is read off the base's deferred operations: some rows, a factor for each column. The first
small matrix takes the factors, the second the rows. It must not know shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import structs
from torch import Tensor

from puma.errors import TensorError, UnsupportedModel
from puma.models import architecture
from puma.models.adapters import lora
from puma.models.adapters.adapted import changes_of
from puma.models.checkpoint import Checkpoint, load
from puma.models.deferred import Deferred, Folded
from puma.models.families import FAMILIES
from puma.models.files import adapter as adapter_files
from puma.models.files.source import Stored
from puma.models.quantised import Header
from puma.models.unfolded.traced import Traced, traced
from puma.nn.modules import Linear

MERGE = "merge it into the base: leave the weights hidden, or share the merged model"


def apart(base: Checkpoint, source: str | Path) -> tuple[dict[str, int], dict[str, Tensor]]:
    """The rank of each matrix that is changed, and the tensors beside them, by the names of a model's parameters.

    UnsupportedModel for an adapter that does more than add products of two small matrices to large ones, TensorError
    for one that does not fit the base.
    """
    files = adapter_files.opened(source)
    headers = {name: Header(entry.shape, entry.dtype) for name, entry in files.entries.items()}
    adapter = lora.parse(files.name, files.raw, headers)
    family, params = FAMILIES[base.architecture], base.fold()
    assert isinstance(params, Folded)
    lows = {name: _low(adapter, name, change) for name, change in changes_of(adapter, family, base.config).items()}
    brought, used = Stored(files.entries), set[str]()
    ranks, found = dict[str, int](), dict[str, Tensor]()
    for module in _linears(base.config):
        lies = traced(params.unread(f"{module}.weight"))
        low = lows.get(lies.name) if lies else None
        if lies is None or low is None:
            continue
        used.add(lies.name)
        _check_bias(adapter, params, module)
        a, b = _folded(brought[low.a], brought[low.b], low.scale, lies, adapter)
        ranks[module], found[f"{module}.adapter.a"], found[f"{module}.adapter.b"] = a.shape[0], a, b
    if lows.keys() - used:
        what = f"the adapter {adapter.name} changes {min(lows.keys() - used)}, beside which nothing can stand"
        raise UnsupportedModel(what, MERGE)
    return ranks, found


def base_of(merged: Any, source: str | Path | None) -> Checkpoint:
    """The checkpoint below an adapter; UnsupportedModel unless the adapter leaves its config as it is."""
    base = load(source)
    if structs.replace(merged, formats=base.config.formats) != base.config:
        raise UnsupportedModel("with its adapter the model has another head or more tokens than its base", MERGE)
    return base


def _linears(config: Any) -> list[str]:
    """The matrices of a model, by name."""
    model = architecture(config).model(config)
    return [name for name, module in model.modules() if isinstance(module, Linear)]


def _low(adapter: lora.Adapter, name: str, change: lora.Change) -> lora.Low:
    low = change.low
    alone = change.whole is None and change.plus is None and change.rows is None
    if low is None or not alone or low.magnitude is not None or low.by_columns:
        raise UnsupportedModel(f"the adapter {adapter.name} does more to {name} than to add B A to a matrix", MERGE)
    return low


def _check_bias(adapter: lora.Adapter, params: Mapping[str, Tensor], module: str) -> None:
    """What was folded into a bias went through the matrix, and would have to go through the adapter, too."""
    assert isinstance(params, Folded)
    bias = params.unread(f"{module}.bias") if f"{module}.bias" in params else None
    if isinstance(bias, Deferred) and bias.recipe is not None:
        raise UnsupportedModel(f"a norm with a bias stands before {module}, which {adapter.name} changes", MERGE)


def _folded(a: Tensor, b: Tensor, scale: float, lies: Traced, adapter: lora.Adapter) -> tuple[Tensor, Tensor]:
    """A (rank, inputs) times the factors of the matrix's columns, its rows of scale B (outputs, rank)."""
    if a.shape[1] != lies.columns or b.shape[0] < lies.stop:
        raise TensorError(f"the adapter {adapter.name} does not fit {lies.name}", lora.NO_MATCH)
    rows = b[lies.first : lies.stop] * scale
    return (a if lies.multiplied is None else a * lies.multiplied).contiguous(), rows.contiguous()
