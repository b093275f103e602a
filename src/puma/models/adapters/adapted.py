"""A checkpoint under a LoRA adapter: its source again, with the settings, tokenizer and tensors that are changed.

What merging computes is lora.py's; here a model's family says which tensors are meant, and the settings follow what the
adapter brings: a head for a task, more tokens, an embedding that is no longer its head. It must not know shares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from puma.errors import TensorError, UnsupportedModel
from puma.models.adapters import lora
from puma.models.adapters.lora import Change
from puma.models.families import FAMILIES, named
from puma.models.family import Family
from puma.models.files import generation
from puma.models.files.adapter import AdapterFiles
from puma.models.files.source import Entry, Source, Stored
from puma.models.naming import called, same, untied
from puma.models.quantised import Header

TASKS = {
    "SEQ_CLS": "SequenceClassification", "TOKEN_CLS": "TokenClassification", "QUESTION_ANS": "QuestionAnswering",
}  # fmt: skip
KIND = re.compile(r"(.+?)(?:LMHeadModel|Model|For\w+)")
TIED = "tie_word_embeddings"
SHARED = "shared.weight"  # T5's, which peft does not wrap where it is read
MOST_CHANGES = 8  # of settings, each of which may call for another


def adapt(source: Source, files: AdapterFiles, hub: str | None, weights: bool) -> Source:
    """The source under an adapter; TensorError by name if they do not belong together.

    `hub` is the checkpoint's name on the hub, if it came from there.
    """
    headers = {name: Header(entry.shape, entry.dtype) for name, entry in files.entries.items()}
    adapter = lora.parse(files.name, files.raw, headers)
    if hub is not None:
        lora.check_base(adapter, hub)
    entries = source.tensors() if weights else {}
    raw = _fitted(adapter, source.raw, set(entries))
    stays = {name: read for name, read in source.files.items() if name == generation.FILE}
    public = stays | dict(files.public) if files.public else source.files
    return replace(source, raw=raw, files=public, tensors=lambda: _merged(adapter, files, raw, entries))


# Settings that follow.


def _fitted(adapter: lora.Adapter, raw: dict[str, Any], stored: set[str]) -> dict[str, Any]:
    """config.json as the adapter's own base had it."""
    raw = raw | _task(adapter, raw)
    for _ in range(MOST_CHANGES):
        changed = _changed(adapter, raw, stored)
        if not changed:
            break
        raw = raw | changed
    return raw


def _task(adapter: lora.Adapter, raw: dict[str, Any]) -> dict[str, Any]:
    """The class with the head that the adapter was trained for."""
    task, architecture = adapter.settings.task_type, named(raw)
    wanted = TASKS.get(task or "")
    kind = KIND.fullmatch(architecture)
    if wanted is None or architecture.endswith(wanted) or kind is None:
        return {}
    for name in (f"{kind[1]}For{wanted}", f"{kind[1]}TextFor{wanted}"):
        if name in FAMILIES:
            return {"architectures": [name]}
    raise UnsupportedModel(f"the adapter is for {task}, of {architecture}", "use a base whose family has that head")


def _changed(adapter: lora.Adapter, raw: dict[str, Any], stored: set[str]) -> dict[str, Any]:
    """One setting that does not fit the adapter yet, as it has to be; {} if all do."""
    family = FAMILIES.get(named(raw))
    if family is None:
        return {}
    config = family.read(raw, stored)
    shapes, changes = family.tensors(config), changes_of(adapter, family, config)
    head, table = untied(family, config), family.stored_as(config, family.architecture.table)
    if head is not None:
        alone = changes.get(table)
        parted = alone is not None and (alone.whole or alone.low) and not adapter.settings.ensure_weight_tying
        if not table and (head in changes or SHARED in changes):
            raise UnsupportedModel(f"the adapter changes {head} or {SHARED}, which are one", lora.MERGE)
        if head in changes or parted:
            return {TIED: False}
    for name, change in changes.items():
        rows = adapter.headers[change.whole].shape[:1] if change.whole else ()
        if name not in shapes or not rows or rows == shapes[name][:1]:
            continue
        if name == table:
            return {"vocab_size": rows[0]}
        if len(getattr(config, "labels", ())) == shapes[name][0]:
            return {"id2label": {str(i): f"LABEL_{i}" for i in range(rows[0])}}
    return {}


# Tensors.


def changes_of(adapter: lora.Adapter, family: Family, config: Any) -> dict[str, Change]:
    """What the adapter changes, by the family's names."""
    names = called(family, config, adapter.changes)
    return {names[name]: change for name, change in adapter.changes.items()}


def _merged(
    adapter: lora.Adapter, files: AdapterFiles, raw: dict[str, Any], stored: Mapping[str, Entry]
) -> Mapping[str, Entry]:
    """All entries; those that are changed are merged each time that they are read."""
    family = FAMILIES[named(raw)]
    config = family.read(raw, set(stored))
    changes, shapes = changes_of(adapter, family, config), family.tensors(config)
    keys = {name: key for key, name in called(family, config, stored).items()}
    base = {name: stored[key] for name, key in keys.items()}
    base |= _new_head(family, config, raw, base)
    linear = {name for name in changes.keys() & base.keys() if base[name].linear}
    turned = family.transposed(config) - linear
    known = {name: shapes[name] for name in changes if name in shapes}
    known |= {name: base[name].shape for name in linear & known.keys()}
    lora.check_fits(adapter, changes, known, turned)
    found = dict(stored) | {name: base[name] for name in base.keys() - keys.keys()}
    for name in _copies(family, config, base, changes):
        del found[keys[name]]
    for name, change in changes.items():
        read = _reader(adapter, files, name, change, base.get(name), name in turned)
        file = (base[name] if name in base else files.entries[change.parts[0]]).file
        found[keys.get(name, name)] = Entry(file, name, known[name], "F32", read, linear=name in linear)
    return found


def _new_head(family: Family, config: Any, raw: dict[str, Any], base: Mapping[str, Entry]) -> dict[str, Entry]:
    """The embedding's table as the head, in a model that has a head of its own under the adapter only."""
    table = base.get(family.stored_as(config, family.architecture.table))
    head = untied(family, family.read(raw | {TIED: True}, set(base)))
    wanted = table is not None and head in family.tensors(config) and head not in base
    return {head: table} if wanted and head and table else {}


def _copies(family: Family, config: Any, base: Mapping[str, Entry], changes: Mapping[str, Change]) -> list[str]:
    """The head of a tied model that is stored, too, where the embedding changes for both."""
    table, head = family.stored_as(config, family.architecture.table), untied(family, config)
    both = head is not None and head in base and table in base and table in changes
    return [head] if head and both and same(base[head], base[table]) else []


def _reader(
    adapter: lora.Adapter, files: AdapterFiles, name: str, change: Change, base: Entry | None, turned: bool
) -> Callable[[], Tensor]:
    """What merges one tensor, of which the checkpoint has `base`."""
    if base is None and not change.whole:
        raise TensorError(f"the adapter {adapter.name} changes {name}, which the checkpoint lacks", lora.NO_MATCH)
    stays = Stored({name: base} if base is not None else {})
    brought = Stored(files.entries)
    return lambda: lora.merged(change, turned, partial(stays.__getitem__, name), brought.__getitem__)
