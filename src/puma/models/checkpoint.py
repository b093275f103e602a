"""The owner's and client's side of a model: a folder, a file or a hub name in, checked tensors in the clear out.

It refuses, with the reason, what would be computed wrongly. In what form files hold tensors, `files/` knows, and which
is which, `naming.py`. It must not know of shares or parties.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from msgspec import structs
from tokenizers import Tokenizer

from puma.errors import CheckpointError, UnsupportedModel
from puma.models import heads, stories, text
from puma.models.adapters.adapted import adapt
from puma.models.config import Config
from puma.models.deferred import Folded, deferred
from puma.models.families import FAMILIES, WHOLES, bare, named, of_text, part_of, started
from puma.models.files import adapter as adapter_files
from puma.models.files.opening import beside, called, opened, parted
from puma.models.files.source import TOKENIZER, Stored
from puma.models.naming import placed
from puma.models.pooling import Pooling


@dataclass(frozen=True)
class Checkpoint:
    """A model in the clear; `state` reads float32 tensors by the family's names, `files` travel with it to clients."""

    folder: Path
    name: str
    architecture: str
    config: Config
    bos: int | None
    eos: tuple[int, ...]
    files: Mapping[str, Callable[[], bytes]]
    state: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    adapted: tuple[Path, ...] = ()  # the files of an adapter
    beyond: tuple[str, ...] = ()  # tensors of layers that the config does not count, and that are left aside

    def fold(self) -> Mapping[str, torch.Tensor]:
        """The parameters that the owner shares; each is read and folded anew when it is looked up. Nothing is said of
        how large they are: a plan is (reference/planning.py)."""
        family = FAMILIES[self.architecture]
        state = {
            name: deferred(shape, partial(self.state.__getitem__, name), name)
            for name, shape in family.tensors(self.config).items()
        }
        entry = self.state.entry if isinstance(self.state, Stored) else None
        return Folded(family.fold(self.config, state), entry)

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files that tensors follow from: those that hold them, an adapter's, and config.json."""
        held = self.state.files if isinstance(self.state, Stored) else ()
        config = self.folder / "config.json"
        return (*held, *self.adapted, *([config] if config.is_file() else []))

    def open_tokenizer(self) -> Tokenizer:
        """Its tokenizer, without padding and truncation."""
        read = self.files.get(TOKENIZER)
        if read is None:
            raise CheckpointError(
                "the checkpoint holds no tokenizer.json",
                "write one: AutoTokenizer.from_pretrained(folder).save_pretrained(folder) in transformers",
            )
        return text.tokenizer_of(read(), f"tokenizer.json of {self.name}", "download the model again")


def load(
    source: str | Path | None = None, weights: bool = True, adapter: str | Path | None = None
) -> Checkpoint:  # fmt: skip
    """Read a checkpoint from a folder, a GGUF file or the hub, or the embedded one; clients need none of its weights.

    What holds several models, as CLIP does, is followed by the name of one: FOLDER/vision_model.
    `adapter` is a PEFT folder or its name on the hub, which is merged as tensors are looked up.
    """
    if source is None or (source == stories.NAME and not Path(stories.NAME).exists()):
        source = stories.FOLDER
    source, part = parted(source)
    found = opened(source, weights)
    raw = part_of(found.raw, part) if part else of_text(found.raw)
    found = replace(found, raw=bare(raw) if found.bare and not part else raw)
    name = _called(source) + (f"-{part}" if part else "")
    adapted = set[Path]()
    if adapter is not None:
        hub, files = None if Path(source).expanduser().exists() else str(source), adapter_files.opened(adapter)
        found, name = adapt(found, files, hub, weights), f"{name}+{files.name}"
        held = {entry.file for entry in files.entries.values()}
        adapted = held | {file.parent / adapter_files.SETTINGS for file in held}
    architecture = architecture_of(found.raw)
    entries = {**found.tensors(), **beside(found.folder, part)} if weights else {}
    special = found.raw | found.generation
    eos = special.get("eos_token_id")
    checkpoint = Checkpoint(
        folder=found.folder,
        name=name,
        architecture=architecture,
        config=configure(architecture, started(found.raw, found.generation), set(entries)),
        bos=special.get("bos_token_id"),
        eos=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
        files=found.files,
        adapted=tuple(sorted(adapted)),
    )
    checkpoint = replace(checkpoint, config=_pooled(checkpoint.config, found.pooling))
    if not weights:
        return checkpoint
    config, needed, beyond = placed(architecture, FAMILIES[architecture], checkpoint.config, entries)
    return replace(checkpoint, config=config, state=Stored(needed), beyond=tuple(beyond))


def _pooled(config: Config, pooling: Pooling | None) -> Config:
    """With what comes behind the states; UnsupportedModel for a model that can have nothing there."""
    if pooling is None or pooling == Pooling():
        return config
    if "pooling" not in config.__struct_fields__ or heads(config).generates:
        hint = "use a model of texts, named without a head in config.json"
        raise UnsupportedModel("the folder pools the states of a model that has none to pool", hint)
    return structs.replace(config, pooling=pooling)


def _called(source: str | Path) -> str:
    """A model's name: its folder's or its file's, or the hub's."""
    path = Path(source).expanduser()
    return called(path) if path.exists() else str(source)


# What the model is.


def architecture_of(raw: dict[str, Any]) -> str:
    """The name of the architecture, if it is implemented."""
    name = named(raw)
    if name in WHOLES:
        raise UnsupportedModel(f"config.json names {name}, which is several models", WHOLES[name])
    if name not in FAMILIES:
        raise UnsupportedModel(f"config.json names {name}", f"puma implements {', '.join(FAMILIES)}")
    return name


def configure(architecture: str, raw: dict[str, Any], names: set[str]) -> Config:
    """The config; some of what is there besides a model's layers shows in the checkpoint's names only."""
    return FAMILIES[architecture].read(raw, names)
