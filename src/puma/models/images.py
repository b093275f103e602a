"""A file to pixel values, at the client: numpy's format as it is, others with Pillow if it is installed.

Whole numbers from 0 to 255 are scaled and normalised as the checkpoint's preprocessor_config.json says; other numbers
are taken as normalised already. It must not know of shares or parties.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from puma.errors import InputError

HALF = (0.5,)  # mean and deviation, if the checkpoint does not say


def read(path: str | Path, folder: Path) -> Tensor:
    """Pixel values (channels, height, width) in float32, prepared as the checkpoint in `folder` wants them."""
    path, settings = Path(path), _settings(folder)
    array = _numbers(path) if path.suffix == ".npy" else _opened(path, settings)
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


def _settings(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _numbers(path: Path) -> Any:
    try:
        return numpy.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", "save it with numpy.save") from error


def _opened(path: Path, settings: dict[str, Any]) -> Any:
    """A picture in any format that Pillow knows, in the size that the checkpoint wants."""
    try:
        from PIL import Image  # type: ignore[import-not-found]
    except ImportError:
        raise InputError(f"{path} needs Pillow to be read", "pip install pillow, or save it with numpy.save") from None
    size = settings.get("size", {})
    try:
        with Image.open(path) as picture:
            channels = len(settings.get("image_mean", (0, 0, 0)))
            picture = picture.convert("L" if channels == 1 else "RGB")
            if "height" in size and "width" in size:
                picture = picture.resize((size["width"], size["height"]), settings.get("resample", 2))
            return numpy.asarray(picture)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", "pass a PNG or JPEG file") from error
