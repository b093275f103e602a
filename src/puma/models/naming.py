"""Which tensor of a checkpoint is which: what wrapped the names, what a head shares with the embedding, what is left.

What is ambiguous is decided as the library decides it (transformers 5, core_model_loading and tie_weights): names with
and without the prefix of the whole model mean the same; a head that is said to be tied and lies there with other
numbers is one of its own; of two that share, one may be missing. It must not know in what form files hold tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
import torch

from puma.errors import TensorError
from puma.models.architecture import Shapes
from puma.models.family import Family, Names
from puma.models.files.source import Entry

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes of a number
Entries = dict[str, Entry]
# What wraps a model while it is trained or compiled, and a text model inside one that also sees.
WRAPPERS = re.compile(
    r"^(?:module\.)+|(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.(?:module\.)*"
)
INSIDE = re.compile(r"^(?:model\.)?language_model\.(?:model\.)*")
OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}
JOINED = {".in_proj_weight": ".in_proj.weight", ".in_proj_bias": ".in_proj.bias"}  # in torch's nn.MultiheadAttention
# Buffers that are computed.
IGNORED = re.compile(r"(?:.*\.)?(?:position|token_type)_ids|.*(?:attn|attention)\.(?:masked_)?bias|.*inv_freq")


def placed(called: str, family: Family, config: Any, entries: Mapping[str, Entry]) -> tuple[Any, Entries, list[str]]:
    """The entry of each tensor that a model needs, its config as they show it, and names of layers that it has not.

    TensorError for one that is missing, misshapen, of another kind of numbers, there twice or unknown.
    """
    found, beyond = _named(called, family, config, parted(entries, family.names_of(config)))
    said, config = getattr(config, "tied", True), _tied(family, config, found)
    for name, other in family.names_of(config).instead.items():
        if other in found and name in family.tensors(config):
            found[name] = found[other]
        elif not said and name in family.tensors(config):
            raise TensorError(f"{other} is missing", f"the head is not tied, and would not read {name}")
    needed, turned = family.tensors(config), family.transposed(config)
    found |= {name: found[name].turned() for name in turned & found.keys() if found[name].linear}
    for name, shape in needed.items():
        if name not in found:
            raise TensorError(f"{name} of shape {list(shape)} is missing", "the checkpoint is not complete")
        check_tensor(found[name], shape)
    return config, {name: found[name] for name in needed}, beyond


def called(family: Family, config: Any, stored: Iterable[str]) -> dict[str, str]:
    """What the family calls tensors that files call so; what it does not know stays as it is."""
    names, known = family.names_of(config), _possible(family, config)
    return {name: next((each for each in canonical(name, names) if each in known), name) for name in stored}


def untied(family: Family, config: Any) -> str | None:
    """The head's name in a model that has one of its own, of one whose head is the embedding's table; else None."""
    heads = set(_possible(family, config)) - set(family.tensors(config))
    return next(iter(heads)) if getattr(config, "tied", False) and len(heads) == 1 else None


def check_tensor(entry: Entry, shape: tuple[int, ...]) -> None:
    """TensorError unless a tensor that is not read yet has the right shape and holds numbers of a known kind."""
    if entry.shape != shape:
        raise TensorError(
            f"{entry.where} has shape {list(entry.shape)}, expected {list(shape)}",
            "weights and config.json do not belong together",
        )
    if entry.dtype not in FLOATS:
        raise TensorError(f"{entry.where} holds {entry.dtype} numbers", f"puma reads {', '.join(FLOATS)}")


def parted(entries: Mapping[str, Entry], names: Names) -> Mapping[str, Entry]:
    """The entries with those of fused and stacked tensors in their place."""
    found = Entries()
    for stored, entry in entries.items():
        stack = next((stack for stack in names.stacked if stored.endswith(stack)), None)
        if stack is not None and len(entry.shape) == 3 and not entry.shape[1] % len(names.stacked[stack]):
            found |= _unstacked(stored.rpartition(".")[0], entry, names.stacked[stack])
            continue
        module, _, kind = stored.rpartition(".")
        whole = next((whole for whole in names.fused if module.endswith(whole)), None)
        if whole is None or entry.shape[0] % len(names.fused[whole]):
            found[stored] = entry
            continue
        parts, before = names.fused[whole], module.removesuffix(whole)
        shape = (entry.shape[0] // len(parts), *entry.shape[1:])
        for i, part in enumerate(parts):
            read, offset = partial(_part, entry, len(parts), i), _offset(entry, len(parts), i)
            found[f"{before}{part}.{kind}"] = entry.remade(read, shape=shape, offset=offset)
    return found


def _unstacked(experts: str, entry: Entry, parts: tuple[str, ...]) -> Entries:
    """Of each expert its parts, which lie one below the other."""
    count, rows, columns = entry.shape
    found = Entries()
    for e in range(count):
        for i, part in enumerate(parts):
            read = partial(_of_expert, entry, e, len(parts), i)
            shape = (rows // len(parts), columns)
            found[f"{experts}.{e}.{part}.weight"] = entry.remade(read, shape=shape)
    return found


def _of_expert(entry: Entry, expert: int, parts: int, number: int) -> torch.Tensor:
    whole = entry.one(expert) if entry.one is not None else entry.read()[expert]
    return whole.chunk(parts)[number].contiguous()


def _part(entry: Entry, parts: int, number: int) -> torch.Tensor:
    return entry.read().chunk(parts)[number].contiguous()


def _offset(entry: Entry, parts: int, number: int) -> int | None:
    """Where in its file this part of an entry's rows begins."""
    if entry.offset is None or entry.dtype not in FLOATS:
        return None
    return entry.offset + number * (math.prod(entry.shape) // parts) * FLOATS[entry.dtype]


# Names.


def _named(called: str, family: Family, config: Any, entries: Mapping[str, Entry]) -> tuple[Entries, list[str]]:
    """Entries by the names that their family has for them, and the names of those in layers behind the last."""
    names = family.names_of(config)
    known = _possible(family, config) | dict.fromkeys([*names.instead.values(), *names.copies], ())
    found, beyond = Entries(), list[str]()
    for stored, entry in entries.items():
        candidates = canonical(stored, names)
        name = next((name for name in candidates if name in known), None)
        if name is not None:
            if name in found:
                what = f"{stored} and {found[name].name} are one tensor of the model"
                raise TensorError(what, "leave one of them in the file")
            found[name] = entry
        elif any(_behind(name, names, known) for name in candidates):
            beyond.append(stored)
        elif not any(IGNORED.fullmatch(name) or re.fullmatch(names.ignored, name) for name in candidates):
            raise TensorError(
                f"{entry.file.name} holds {stored}, which {called} with this config.json has not",
                "weights and config.json do not belong together, or the model is a variant of it",
            )
    return found, beyond


def canonical(name: str, names: Names) -> list[str]:
    """What a tensor may be called by its family: as it is, or with the prefix of the whole model."""
    name = INSIDE.sub("", WRAPPERS.sub("", name))
    for old, new in OLD_NAMES.items():
        name = name.removesuffix(old) + new if name.endswith(f"LayerNorm{old}") else name
    for theirs, ours in JOINED.items():
        name = name.removesuffix(theirs) + ours if name.endswith(theirs) else name
    for pattern, other in names.renamed.items():
        name = re.sub(pattern, other, name)
    return [name, names.prefix + name] if names.prefix else [name]


def _behind(name: str, names: Names, known: Shapes) -> bool:
    """Whether a name is one of a layer that a model could have, if it had more: the library leaves these aside, too."""
    for module in (*names.modules, *names.grouped):
        before, number, after = module.partition("{}")
        found = number and re.fullmatch(f"{re.escape(before)}(\\d{{1,9}}){re.escape(after)}(\\..+)?", name)
        # Layers may be of several kinds, so that any of those before it may have what this one has.
        count = min(int(found[1]), len(known)) if found else 0
        if found and any(f"{before}{i}{after}{found[2] or ''}" in known for i in range(count)):
            return True
    return False


# Heads that share the embedding's table.


def _possible(family: Family, config: Any) -> Shapes:
    """What a checkpoint may hold, whether its head is tied or not."""
    return {name: shape for each in _both(config) for name, shape in family.tensors(each).items()}


def _both(config: Any) -> Iterator[Any]:
    yield config
    if hasattr(config, "tied"):
        yield msgspec.structs.replace(config, tied=not config.tied)


def _tied(family: Family, config: Any, found: Entries) -> Any:
    """The config as the tensors show it; of what is shared, each has an entry then."""
    table = family.stored_as(config, family.architecture.table)
    for copy in family.names_of(config).copies:
        if copy in found and table in found and not same(found[copy], found[table]):
            raise TensorError(
                f"{found[copy].where} is not {table}, which the model would read", "a variant of the model"
            )
        if copy in found:
            found.setdefault(table, found[copy])
    heads = set(_possible(family, config)) - set(family.tensors(config))
    if getattr(config, "tied", False):
        for head in heads & found.keys():  # there is one
            if table in found and not same(found[head], found[table]):
                return msgspec.structs.replace(config, tied=False)
            found.setdefault(table, found[head])
    elif family.shares and hasattr(config, "tied"):
        shared = msgspec.structs.replace(config, tied=True)
        if not set(family.tensors(config)) - set(family.tensors(shared)) <= found.keys():
            return shared
    return config


def same(one: Entry, other: Entry) -> bool:
    """Whether two tensors hold the same numbers."""
    return one.shape == other.shape and torch.equal(one.read().float(), other.read().float())
