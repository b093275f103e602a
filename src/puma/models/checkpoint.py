"""The owner's and client's side of a model: a folder or hub name in, checked tensors in the clear out.

It gives tensors the names of their family, and refuses, with the reason, what would be computed wrongly. In what form
files hold them, `files/` knows. It must not know of shares or parties.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from puma.errors import CheckpointError, TensorError, UnsupportedModel
from puma.models import text
from puma.models.config import Config
from puma.models.deferred import Folded, deferred
from puma.models.families import FAMILIES, named
from puma.models.files.opening import opened
from puma.models.files.source import TOKENIZER, Entry, Stored

FLOATS = ("F64", "F32", "F16", "BF16")
OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}
JOINED = {".in_proj_weight": ".in_proj.weight", ".in_proj_bias": ".in_proj.bias"}  # in torch's nn.MultiheadAttention
# Buffers that are computed.
IGNORED = re.compile(r".*\.(position|token_type)_ids|.*\.(attn|attention)\.(masked_)?bias|.*\.inv_freq")


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

    def fold(self) -> Mapping[str, torch.Tensor]:
        """The parameters that the owner shares; each is read and folded anew when it is looked up. Nothing is said of
        how large they are: a plan is (reference/planning.py)."""
        family = FAMILIES[self.architecture]
        state = {
            name: deferred(shape, partial(self.state.__getitem__, name))
            for name, shape in family.tensors(self.config).items()
        }
        return Folded(family.fold(self.config, state))

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files that tensors are read from."""
        return self.state.files if isinstance(self.state, Stored) else ()

    def open_tokenizer(self) -> Tokenizer:
        """Its tokenizer, without padding and truncation."""
        read = self.files.get(TOKENIZER)
        if read is None:
            raise CheckpointError(
                "the checkpoint holds no tokenizer.json",
                "write one: AutoTokenizer.from_pretrained(folder).save_pretrained(folder) in transformers",
            )
        return text.tokenizer_of(read(), f"tokenizer.json of {self.name}", "download the model again")


def embedded() -> Path:
    """The folder of the model that travels with the package."""
    return Path(__file__).parent / "stories"


def load(source: str | Path, weights: bool = True) -> Checkpoint:
    """Read a checkpoint from a folder or from the hub; a client, who needs no weights, goes without."""
    found = opened(source, weights)
    architecture = architecture_of(found.raw)
    entries = found.tensors() if weights else {}
    special = found.raw | found.generation
    eos = special.get("eos_token_id")
    checkpoint = Checkpoint(
        folder=found.folder,
        name=str(source) if Path(source) != found.folder else found.folder.resolve().name,
        architecture=architecture,
        config=configure(architecture, found.raw, set(entries)),
        bos=special.get("bos_token_id"),
        eos=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
        files=found.files,
    )
    return replace(checkpoint, state=read_state(checkpoint, entries)) if weights else checkpoint


# What the model is.


def architecture_of(raw: dict[str, Any]) -> str:
    """The name of the architecture, if it is implemented."""
    name = named(raw)
    if name not in FAMILIES:
        raise UnsupportedModel(f"config.json names {name}", f"puma implements {', '.join(FAMILIES)}")
    return name


def configure(architecture: str, raw: dict[str, Any], names: set[str]) -> Config:
    """The config; some of what is there besides a model's layers shows in the checkpoint's names only."""
    return FAMILIES[architecture].read(raw, names)


# The tensors.


def read_state(checkpoint: Checkpoint, entries: Mapping[str, Entry]) -> Mapping[str, torch.Tensor]:
    """All tensors that the architecture needs, of the right shapes; they are not read yet."""
    family = FAMILIES[checkpoint.architecture]
    expected, names = family.tensors(checkpoint.config), family.names
    turned = family.transposed(checkpoint.config)
    bare = not any(name.startswith(names.prefix) for name in entries)
    ignored = re.compile(names.ignored)
    needed: dict[str, Entry] = {}
    for stored, entry in entries.items():
        name = canonical(stored, names.prefix if bare else "", names.heads)
        if name in expected:
            entry = entry.turned() if entry.linear and name in turned else entry
            check_tensor(entry, expected[name])
            needed[name] = entry
        elif not (IGNORED.fullmatch(name) or ignored.fullmatch(name)):
            raise TensorError(
                f"{entry.file.name} holds {stored}, which {checkpoint.architecture} with this config.json has not",
                "weights and config.json do not belong together, or the model is a variant of it",
            )
    for name, shape in expected.items():
        if name not in needed:
            raise TensorError(f"{name} of shape {list(shape)} is missing", "the checkpoint is not complete")
    return Stored(needed)


def canonical(name: str, prefix: str, heads: tuple[str, ...]) -> str:
    """A tensor's name as its family's names have it."""
    for old, new in OLD_NAMES.items():
        name = name.removesuffix(old) + new if name.endswith(f"LayerNorm{old}") else name
    for theirs, ours in JOINED.items():
        name = name.removesuffix(theirs) + ours if name.endswith(theirs) else name
    return name if name.startswith(heads) else prefix + name


def check_tensor(entry: Entry, shape: tuple[int, ...]) -> None:
    """TensorError unless a tensor that is not read yet has the right shape and holds numbers of a known kind."""
    if entry.shape != shape:
        raise TensorError(
            f"{entry.where} has shape {list(entry.shape)}, expected {list(shape)}",
            "weights and config.json do not belong together",
        )
    if entry.dtype not in FLOATS:
        raise TensorError(f"{entry.where} holds {entry.dtype} numbers", f"puma reads {', '.join(FLOATS)}")
