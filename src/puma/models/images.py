"""A file to pixel values, at the client: numpy's format as it is, others with Pillow if it is installed.

Whole numbers from 0 to 255 are scaled and normalised as the checkpoint's preprocessor_config.json says, and where it
says nothing as its class in the library does (transformers 5, ViTImageProcessor and CLIPImageProcessor); other numbers
are taken as normalised already. It must not know of shares or parties.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from puma.errors import CheckpointError, InputError
from puma.models.architectures.vit import Vit

HALF = (0.5,)  # mean and deviation, if the checkpoint does not say
SIDE = 224  # of the square that classes make if they are not told another
BILINEAR, BICUBIC = 2, 3  # as Pillow counts ways to resize
USUAL: dict[str, dict[str, Any]] = {  # by class: what holds where nothing is said
    "ViT": {"size": {"height": SIDE, "width": SIDE}, "resample": BILINEAR, "do_center_crop": False, "square": True},
    "CLIP": {
        "size": {"shortest_edge": SIDE}, "resample": BICUBIC, "do_center_crop": True, "square": False,
        "crop_size": {"height": SIDE, "width": SIDE}, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
}  # fmt: skip
NAMED = re.compile(r"(ViT|CLIP)(?:ImageProcessor|FeatureExtractor)(?:Fast|Pil)?")


def read(path: str | Path, folder: Path) -> Tensor:
    """Pixel values (channels, height, width) in float32, prepared as the checkpoint in `folder` wants them."""
    path = Path(path)
    return prepared(_numbers(path) if path.suffix == ".npy" else _opened(path, _settings(folder)), folder, path)


def prepared(array: Any, folder: Path, path: str | Path) -> Tensor:
    """The same from an image's numbers; `path` says where they come from, should they be none."""
    settings = _settings(folder)
    if array.ndim == 2:
        array = array[:, :, None] if array.dtype == numpy.uint8 else array[None]
    if array.ndim != 3 or array.dtype.kind not in "fu":
        raise InputError(f"{path} holds no image", "height, width, channels as bytes; or channels first, as floats")
    if array.dtype != numpy.uint8:
        return torch.from_numpy(array.astype(numpy.float32))
    scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    pixels = torch.from_numpy(array.astype(numpy.float32)).permute(2, 0, 1) * scale
    if not settings.get("do_normalize", True):
        return pixels
    mean, deviation = (torch.tensor(settings.get(name, HALF)) for name in ("image_mean", "image_std"))
    return (pixels - mean[:, None, None]) / deviation[:, None, None]


def patches(config: Vit, pixels: Tensor) -> Tensor:
    """Pixel values (channels, height, width) as rows (patches, channels * patch * patch)."""
    size, patch = config.image_size, config.patch_size
    if tuple(pixels.shape) != (config.channels, size, size):
        raise InputError(
            f"an image of {list(pixels.shape)} does not fit the model's {[config.channels, size, size]}",
            "resize it first: channels, height, width",
        )
    side = size // patch
    tiles = pixels.reshape(config.channels, side, patch, side, patch).permute(1, 3, 0, 2, 4)
    return tiles.reshape(side * side, -1)


def idx(path: Path, dimensions: int) -> Any:
    """Bytes in the format of the MNIST files, numbers below each other in `dimensions`; gzipped or not."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}", "pass a file in MNIST's format") from error
    sizes = struct.unpack_from(f">{dimensions}I", content, 4) if len(content) >= 4 + 4 * dimensions else ()
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - start != math.prod(sizes):
        what = "images" if dimensions == 3 else "labels"
        raise InputError(f"{path} holds no {what} in MNIST's format", "check which file is which")
    return numpy.frombuffer(content, numpy.uint8, offset=start).reshape(sizes)


def _settings(folder: Path) -> dict[str, Any]:
    """What preprocessor_config.json says, over what its class does; CheckpointError for one that makes pixels in a way
    of its own. Else the mean and deviation that config.json may have under "normalize"."""
    said, config = _object(folder / "preprocessor_config.json"), _object(folder / "config.json") or {}
    there = said is not None
    if not there and isinstance(config.get("normalize"), list) and len(config["normalize"]) == 2:
        mean, deviation = config["normalize"]
        said = {"image_mean": [mean], "image_std": [deviation]}
    said = {name: value for name, value in (said or {}).items() if value is not None}
    named = said.get("image_processor_type") or said.get("feature_extractor_type")
    found = NAMED.fullmatch(str(named))
    if named is not None and found is None:
        what = f"preprocessor_config.json in {folder} names {named}, which prepares images in a way of its own"
        raise CheckpointError(what, "save prepared ones with numpy.save, as floats with channels first")
    kind = found[1] if found else "CLIP" if str(config.get("model_type")).startswith("clip") else "ViT"
    if not there:
        said = {"do_resize": False, "do_center_crop": False} | said  # an image of the right size is taken as it is
    colours = config.get("num_channels", 3) == 3
    usual = {name: value for name, value in USUAL[kind].items() if colours or name not in ("image_mean", "image_std")}
    return usual | said


def _object(path: Path) -> dict[str, Any] | None:
    """What a file of settings says; None where there is none."""
    if not path.is_file():
        return None
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no JSON object", "download the model again")
    return found


def _sized(picture: Any, settings: dict[str, Any]) -> Any:
    """A picture in the size that settings ask for: as it is told, or by its shorter side, and perhaps cut to its
    middle."""
    size: Any = settings["size"]
    if isinstance(size, int):
        size = {"height": size, "width": size} if settings["square"] else {"shortest_edge": size}
    if settings.get("do_resize", True) and "height" in size and "width" in size:
        picture = picture.resize((size["width"], size["height"]), settings["resample"])
    elif settings.get("do_resize", True) and "shortest_edge" in size:
        short, least = size["shortest_edge"], min(picture.size)
        picture = picture.resize(tuple(int(short * side / least) for side in picture.size), settings["resample"])
    cut = settings.get("crop_size", {})
    wide, high = (cut, cut) if isinstance(cut, int) else (cut.get("width"), cut.get("height"))
    if not settings["do_center_crop"] or wide is None or high is None:
        return picture
    left, top = (picture.size[0] - wide) // 2, (picture.size[1] - high) // 2
    return picture.crop((left, top, left + wide, top + high))


def _numbers(path: Path) -> Any:
    try:
        return numpy.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", "save it with numpy.save") from error


def _opened(path: Path, settings: dict[str, Any]) -> Any:
    """A picture in any format that Pillow knows, in the size that the checkpoint wants."""
    try:
        from PIL import Image, ImageOps  # type: ignore[import-not-found]  # noqa: PLC0415  # nothing else needs Pillow
    except ImportError:
        raise InputError(f"{path} needs Pillow to be read", "pip install pillow, or save it with numpy.save") from None
    try:
        with Image.open(path) as picture:
            channels = len(settings.get("image_mean", (0, 0, 0)))
            picture = ImageOps.exif_transpose(picture).convert("L" if channels == 1 else "RGB")  # as it was held
            return numpy.asarray(_sized(picture, settings))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", "pass a PNG or JPEG file") from error
