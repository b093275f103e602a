"""A checkpoint under a LoRA adapter: its source again, with the settings, tokenizer and tensors that are changed.

What merging computes is lora.py's; here a model's family says which tensors are meant, and the settings follow what the
adapter brings: a head for a task, more tokens, an embedding that is no longer its head. It must not know shares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from puma.errors import TensorError, UnsupportedModel
from puma.models import lora
from puma.models.families import FAMILIES, named
from puma.models.family import Family
from puma.models.files.adapter import AdapterFiles
from puma.models.files.source import Entry, Source, Stored
from puma.models.lora import Change
from puma.models.quantised import Header

Canonical = Callable[[Family, Iterable[str]], Mapping[str, str]]  # names as files have them -> as the family has them
TASKS = {"SEQ_CLS": "SequenceClassification", "TOKEN_CLS": "TokenClassification"}
OTHER_TASKS = ("QUESTION_ANS",)
KIND = re.compile(r"(.+?)(?:LMHeadModel|Model|For\w+)")
TIED = "tie_word_embeddings"
TABLES = ("model.embed_tokens", "bert.embeddings.word_embeddings")  # of token embeddings that may be a head, too
MOST_CHANGES = 8  # of settings, each of which may call for another


def adapt(source: Source, files: AdapterFiles, hub: str | None, weights: bool, canonical: Canonical) -> Source:
    """The source under an adapter; TensorError by name if they do not belong together.

    `hub` is the checkpoint's name on the hub, if it came from there.
    """
    headers = {name: Header(entry.shape, entry.dtype) for name, entry in files.entries.items()}
    adapter = lora.parse(files.name, files.raw, headers)
    if hub is not None:
        lora.check_base(adapter, hub)
    entries = source.tensors() if weights else {}
    raw = _fitted(adapter, source.raw, set(entries), canonical)
    return replace(
        source,
        raw=raw,
        files=files.public or source.files,
        tensors=lambda: _merged(adapter, files, raw, entries, canonical),
    )


# Settings that follow.


def _fitted(adapter: lora.Adapter, raw: dict[str, Any], stored: set[str], canonical: Canonical) -> dict[str, Any]:
    """config.json as the adapter's own base had it."""
    raw = raw | _task(adapter, raw)
    for _ in range(MOST_CHANGES):
        changed = _changed(adapter, raw, stored, canonical)
        if not changed:
            break
        raw = raw | changed
    return raw


def _task(adapter: lora.Adapter, raw: dict[str, Any]) -> dict[str, Any]:
    """The class with the head that the adapter was trained for."""
    task, architecture = adapter.settings.task_type, named(raw)
    if task in OTHER_TASKS:
        raise UnsupportedModel(f"the adapter is for {task}", f"puma implements {', '.join(TASKS)} and CAUSAL_LM")
    wanted = TASKS.get(task or "")
    kind = KIND.fullmatch(architecture)
    if wanted is None or architecture.endswith(wanted) or kind is None:
        return {}
    for name in (f"{kind[1]}For{wanted}", f"{kind[1]}TextFor{wanted}"):
        if name in FAMILIES:
            return {"architectures": [name]}
    raise UnsupportedModel(f"the adapter is for {task}, of {architecture}", "use a base whose family has that head")


def _changed(adapter: lora.Adapter, raw: dict[str, Any], stored: set[str], canonical: Canonical) -> dict[str, Any]:
    """One setting that does not fit the adapter yet, as it has to be; {} if all do."""
    family = FAMILIES.get(named(raw))
    if family is None:
        return {}
    config = family.read(raw, stored)
    shapes, changes = family.tensors(config), _changes(adapter, family, canonical)
    head, table = _head(family, raw, stored, shapes), _table(family)
    if head is not None:
        alone = changes.get(f"{table}.weight")
        parted = alone is not None and (alone.whole or alone.low) and not adapter.settings.ensure_weight_tying
        if head in changes or parted:
            return {TIED: False}
    for name, change in changes.items():
        rows = adapter.headers[change.whole].shape[:1] if change.whole else ()
        if name not in shapes or not rows or rows == shapes[name][:1]:
            continue
        if name == f"{table}.weight":
            return {"vocab_size": rows[0]}
        if len(getattr(config, "labels", ())) == shapes[name][0]:
            return {"id2label": {str(i): f"LABEL_{i}" for i in range(rows[0])}, "num_labels": None}
    return {}


def _table(family: Family) -> str | None:
    """The module of token embeddings, where a head of its own computes what a tied one does."""
    return next((theirs for theirs, ours in family.names.modules.items() if ours in TABLES), None)


def _head(family: Family, raw: dict[str, Any], stored: set[str], shapes: Mapping[str, Any]) -> str | None:
    """The name that the head's matrix would have if it were not the embedding; None if it is not."""
    if _table(family) is None:
        return None
    more = family.tensors(family.read(raw | {TIED: False}, stored)).keys() - shapes.keys()
    return next(iter(more)) if len(more) == 1 else None


# Tensors.


def _changes(adapter: lora.Adapter, family: Family, canonical: Canonical) -> dict[str, Change]:
    """What the adapter changes, by the family's names."""
    names = canonical(family, adapter.changes)
    return {names[name]: change for name, change in adapter.changes.items()}


def _merged(
    adapter: lora.Adapter, files: AdapterFiles, raw: dict[str, Any], stored: Mapping[str, Entry], canonical: Canonical
) -> Mapping[str, Entry]:
    """All entries by the family's names; those that are changed are merged each time that they are read."""
    family = FAMILIES[named(raw)]
    names = canonical(family, stored)
    found = {names[name]: entry for name, entry in stored.items()}
    config = family.read(raw, set(stored))
    shapes, turned = family.tensors(config), family.transposed(config)
    table = found.get(f"{_table(family)}.weight")
    if table is not None:  # a head that was the embedding until now
        found |= {name: table for name in _untied(family, raw, stored, found) & shapes.keys()}
    changes = _changes(adapter, family, canonical)
    linear = {name for name in changes if name in found and found[name].linear}
    known = shapes | {name: found[name].shape for name, change in changes.items() if name in found and not change.whole}
    lora.check_fits(adapter, changes, {name: known[name] for name in shapes}, turned - linear)
    for name, change in changes.items():
        read = _reader(adapter, files, name, change, found.get(name), name in turned - linear)
        file = (found[name] if name in found else files.entries[change.parts[0]]).file
        found[name] = Entry(file, name, known[name], "F32", read, linear=name in linear)
    return found


def _reader(
    adapter: lora.Adapter, files: AdapterFiles, name: str, change: Change, base: Entry | None, turned: bool
) -> Callable[[], Tensor]:
    """What merges one tensor, of which the checkpoint has `base`."""
    if base is None and not change.whole:
        raise TensorError(f"the adapter {adapter.name} changes {name}, which the checkpoint lacks", lora.NO_MATCH)
    stays = Stored({name: base} if base is not None else {})
    brought = Stored(files.entries)
    return lambda: lora.merged(change, turned, partial(stays.__getitem__, name), brought.__getitem__)


def _untied(family: Family, raw: dict[str, Any], stored: Iterable[str], found: Mapping[str, Entry]) -> set[str]:
    """The head that a tied model has not: what is expected now, was not before and is not stored."""
    tied = family.tensors(family.read(raw | {TIED: True}, set(stored)))
    return family.tensors(family.read(raw, set(stored))).keys() - tied.keys() - found.keys()
