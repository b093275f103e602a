"""A file to pixel values, at the client: numpy's format as it is, others with Pillow if it is installed.

Whole numbers from 0 to 255 are scaled and normalised as the checkpoint's preprocessor_config.json says; other numbers
are taken as normalised already. It must not know of shares or parties.
"""

from __future__ import annotations

import gzip
import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from puma.errors import InputError
from puma.models.architectures.vit import Vit

HALF = (0.5,)  # mean and deviation, if the checkpoint does not say


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
    pixels = torch.from_numpy(array.astype(numpy.float32)).permute(2, 0, 1) * settings.get("rescale_factor", 1 / 255)
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
    """What preprocessor_config.json says; else the mean and deviation that config.json may have under "normalize"."""
    try:
        return json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    try:
        mean, deviation = json.loads((folder / "config.json").read_text(encoding="utf-8"))["normalize"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {"image_mean": [mean], "image_std": [deviation]}


def _sized(picture: Any, settings: dict[str, Any]) -> Any:
    """A picture in the size that settings ask for: as it is told, or by its shorter side and then cut to its middle."""
    size: Any = settings.get("size", {})
    method = settings.get("resample", 2)
    size = {"shortest_edge": size} if isinstance(size, int) else size
    if "height" in size and "width" in size:
        return picture.resize((size["width"], size["height"]), method)
    if "shortest_edge" not in size:
        return picture
    short = size["shortest_edge"]
    least = min(picture.size)
    picture = picture.resize(tuple(int(short * side / least) for side in picture.size), method)
    cut = settings.get("crop_size", {})
    wide, high = (cut, cut) if isinstance(cut, int) else (cut.get("width"), cut.get("height"))
    if not settings.get("do_center_crop", True) or wide is None or high is None:
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
        from PIL import Image  # type: ignore[import-not-found]  # noqa: PLC0415  # nobody needs Pillow for anything else
    except ImportError:
        raise InputError(f"{path} needs Pillow to be read", "pip install pillow, or save it with numpy.save") from None
    try:
        with Image.open(path) as picture:
            channels = len(settings.get("image_mean", (0, 0, 0)))
            picture = picture.convert("L" if channels == 1 else "RGB")
            return numpy.asarray(_sized(picture, settings))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", "pass a PNG or JPEG file") from error
