"""The owner's and client's side of a model: a folder or hub name in, checked tensors in the clear out.

It reads Hugging Face folders (config.json, safetensors, tokenizer.json) and refuses, with the reason, what
would be computed wrongly.  It must not know of shares or parties.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from puma.errors import CheckpointError, TensorError, UnsupportedModel
from puma.models.config import Config
from puma.models.deferred import Folded, deferred
from puma.models.families import FAMILIES, named
from puma.models.ranges import check

HUB_FILES = ["*.json", "*.txt", "*.model"]
ORIGINAL = "use the original checkpoint, in fp32, fp16 or bf16"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
FLOATS = ("F64", "F32", "F16", "BF16")
OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}
JOINED = {".in_proj_weight": ".in_proj.weight", ".in_proj_bias": ".in_proj.bias"}  # in torch's nn.MultiheadAttention
# Buffers that are computed.
IGNORED = re.compile(r".*\.(position|token_type)_ids|.*\.(attn|attention)\.(masked_)?bias|.*\.inv_freq")


@dataclass(frozen=True)
class Checkpoint:
    """A model in the clear; `state` reads float32 tensors by the checkpoint's names."""

    folder: Path
    name: str
    architecture: str
    config: Config
    tokenizer: Path | None
    bos: int | None
    eos: tuple[int, ...]
    state: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def fold(self) -> Mapping[str, torch.Tensor]:
        """The parameters that the owner shares, all checked; each is read and folded anew when it is looked up."""
        family = FAMILIES[self.architecture]
        state = {
            name: deferred(shape, partial(self.state.__getitem__, name))
            for name, shape in family.tensors(self.config).items()
        }
        params = Folded(family.fold(self.config, state))
        check(self.config, params)
        return params


class Stored(Mapping[str, torch.Tensor]):
    """Tensors in safetensors files: read, in float32, and found to be finite each time that they are looked up.

    `places` says of each name in which file it is, and under which name there. A file is mapped while a tensor of it is
    in use, and no longer: what was read of a mapping stays in memory as long as the mapping. CheckpointError if a file
    is not what it was at first: what was proven about its numbers would not hold.
    """

    def __init__(self, places: Mapping[str, tuple[Path, str]]) -> None:
        self._places = places
        self._stamps = {path: _stamp(path) for path, _ in places.values()}

    def __getitem__(self, name: str) -> torch.Tensor:
        path, stored = self._places[name]
        try:
            if _stamp(path) != self._stamps[path]:
                raise CheckpointError(f"{path} has been changed meanwhile", "run the command again")
            with safe_open(path, framework="pt") as file:
                return finite(f"{stored} in {path.name}", file.get_tensor(stored).to(torch.float32))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes with a file's content: which file it is, its size, when it was written."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def embedded() -> Path:
    """The folder of the model that travels with the package."""
    return Path(__file__).parent / "stories"


def load(source: str | Path, weights: bool = True) -> Checkpoint:
    """Read a checkpoint from a folder or from the hub; a client, who needs no weights, goes without."""
    folder = locate(source, weights)
    raw = read_json(folder / "config.json")
    architecture = architecture_of(raw)
    files = weight_files(folder) if weights else []
    config = configure(architecture, raw, names_in(files))
    generation = folder / "generation_config.json"
    special = raw | (read_json(generation) if generation.is_file() else {})
    eos = special.get("eos_token_id")
    tokenizer = folder / "tokenizer.json"
    checkpoint = Checkpoint(
        folder=folder,
        name=str(source) if Path(source) != folder else folder.resolve().name,
        architecture=architecture,
        config=config,
        tokenizer=tokenizer if tokenizer.is_file() else None,
        bos=special.get("bos_token_id"),
        eos=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
    )
    return replace(checkpoint, state=read_state(checkpoint, files)) if weights else checkpoint


# Where the files are.


def locate(source: str | Path, weights: bool) -> Path:
    """The folder of a checkpoint; folders first, then the hub."""
    folder = Path(source).expanduser()
    if not folder.exists() and isinstance(source, str) and HUB_NAME.fullmatch(source):
        folder = download(source, weights)
    if any([folder] if folder.suffix == ".gguf" else folder.glob("*.gguf")) and not (folder / "config.json").is_file():
        raise UnsupportedModel(f"{source} is quantised (GGUF)", ORIGINAL)
    if not folder.exists():
        raise CheckpointError(f"there is no folder {source}", "pass a checkpoint's folder or a hub name")
    if not (folder / "config.json").is_file():
        hint = "a checkpoint's folder holds config.json, model.safetensors and tokenizer.json"
        raise CheckpointError(f"{source} is no checkpoint: it holds no config.json", hint)
    return folder


def download(name: str, weights: bool) -> Path:
    """Fetch a model's files from the hub, or find them in its cache."""
    import huggingface_hub  # noqa: PLC0415  # heavy, and only a name on the hub needs it
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError  # noqa: PLC0415

    patterns = [*HUB_FILES, "*.safetensors"] if weights else HUB_FILES
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise CheckpointError(
            f"there is no folder {name}, and the hub gives no access to a model of that name",
            "check the spelling; for a gated or private model, log in with `hf auth login`",
        ) from error
    except Exception as error:  # the hub's client raises what its many transports raise
        raise CheckpointError(
            f"there is no folder {name}, and the hub cannot be reached ({type(error).__name__})",
            "download the model where there is a network, and pass its folder",
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or several."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
    elif single.is_file():
        names = [single.name]
    elif any(folder.glob("pytorch_model*.bin*")):
        raise CheckpointError(
            f"{folder} holds its weights in pytorch_model.bin only, which could run code when opened",
            "convert it: AutoModel.from_pretrained(folder).save_pretrained(folder) in transformers",
        )
    elif any(folder.glob("*.gguf")):
        raise UnsupportedModel(f"{folder} holds quantised weights only (GGUF)", ORIGINAL)
    else:
        raise CheckpointError(f"{folder} holds no model.safetensors", "export the model as safetensors")
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(f"{folder} lacks {name}, which its index names", "download the model again")
    return [folder / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object", "download the model again")
    return content


# What the model is.


def architecture_of(raw: dict[str, Any]) -> str:
    """The name of the architecture, if it is implemented and its weights are plain numbers."""
    name = named(raw)
    if name not in FAMILIES:
        raise UnsupportedModel(f"config.json names {name}", f"puma implements {', '.join(FAMILIES)}")
    if raw.get("quantization_config"):
        method = raw["quantization_config"].get("quant_method", "unknown method")
        raise UnsupportedModel(f"the checkpoint is quantised ({method})", ORIGINAL)
    return name


def configure(architecture: str, raw: dict[str, Any], names: set[str]) -> Config:
    """The config; some of what is there besides a model's layers shows in the checkpoint's names only."""
    return FAMILIES[architecture].read(raw, names)


# The tensors.


def names_in(files: list[Path]) -> set[str]:
    """The names of all tensors of a checkpoint."""
    return {name for _, name, _ in slices(files)}


def slices(files: list[Path]) -> Iterator[tuple[Path, str, Any]]:
    """Every tensor, not yet read: its file, its name, its safetensors slice."""
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    yield path, name, file.get_slice(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error


def read_state(checkpoint: Checkpoint, files: list[Path]) -> Mapping[str, torch.Tensor]:
    """All tensors that the architecture needs, of the right shapes; they are not read yet."""
    family = FAMILIES[checkpoint.architecture]
    expected, names = family.tensors(checkpoint.config), family.names
    bare = not any(name.startswith(names.prefix) for name in names_in(files))
    ignored = re.compile(names.ignored)
    places: dict[str, tuple[Path, str]] = {}
    for path, stored, content in slices(files):
        name = canonical(stored, names.prefix if bare else "", names.heads)
        if name in expected:
            check_tensor(f"{stored} in {path.name}", content, expected[name])
            places[name] = path, stored
        elif not (IGNORED.fullmatch(name) or ignored.fullmatch(name)):
            raise TensorError(
                f"{path.name} holds {stored}, which {checkpoint.architecture} with this config.json has not",
                "weights and config.json do not belong together, or the model is a variant of it",
            )
    for name, shape in expected.items():
        if name not in places:
            raise TensorError(f"{name} of shape {list(shape)} is missing", "the checkpoint is not complete")
    return Stored(places)


def canonical(name: str, prefix: str, heads: tuple[str, ...]) -> str:
    """A tensor's name as its family's names have it."""
    for old, new in OLD_NAMES.items():
        name = name.removesuffix(old) + new if name.endswith(f"LayerNorm{old}") else name
    for theirs, ours in JOINED.items():
        name = name.removesuffix(theirs) + ours if name.endswith(theirs) else name
    return name if name.startswith(heads) else prefix + name


def check_tensor(where: str, content: Any, shape: tuple[int, ...]) -> None:
    """TensorError unless a tensor that is not read yet has the right shape and holds numbers of a known kind."""
    if tuple(content.get_shape()) != shape:
        raise TensorError(
            f"{where} has shape {content.get_shape()}, expected {list(shape)}",
            "weights and config.json do not belong together",
        )
    if content.get_dtype() not in FLOATS:
        raise TensorError(f"{where} holds {content.get_dtype()} numbers", f"puma reads {', '.join(FLOATS)}")


def finite(where: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, if all of its numbers are finite."""
    if tensor.numel() and not all(math.isfinite(end) for end in tensor.aminmax()):  # without a copy of its size
        raise TensorError(f"{where} holds NaN or infinite numbers", "the checkpoint is damaged")
    return tensor
