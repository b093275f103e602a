"""A file becomes pixel values as the checkpoint wants them, and patches in the order of its matrix."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.testing import assert_close

from puma.errors import CheckpointError, InputError
from puma.models import images
from puma.models.config import Vit

VIT = Vit(hidden_size=8, intermediate_size=8, layers=1, heads=2, image_size=4, patch_size=2)


def saved(folder: Path, array: numpy.ndarray) -> Path:
    numpy.save(folder / "image.npy", array)
    return folder / "image.npy"


def test_bytes_are_scaled_and_normalised(tmp_path: Path) -> None:
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.25, 1.0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    array = numpy.arange(48, dtype=numpy.uint8).reshape(4, 4, 3)
    found = images.read(saved(tmp_path, array), tmp_path)
    expected = torch.arange(48).reshape(4, 4, 3).permute(2, 0, 1) / 255 - torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    assert_close(found, expected / torch.tensor([0.5, 0.25, 1.0])[:, None, None])
    (tmp_path / "preprocessor_config.json").unlink()
    grey = images.read(saved(tmp_path, array[:, :, 0]), tmp_path)
    assert_close(grey, (torch.from_numpy(array[:, :, 0].astype("float32")) / 255 - 0.5)[None] / 0.5)


def test_other_numbers_are_taken_as_they_are(tmp_path: Path) -> None:
    array = numpy.linspace(-2, 2, 48).reshape(3, 4, 4)
    assert_close(images.read(saved(tmp_path, array), tmp_path), torch.from_numpy(array).float())


def test_patches_lie_row_by_row() -> None:
    pixels = torch.arange(48.0).reshape(3, 4, 4)
    rows = images.patches(VIT, pixels)
    matrix = torch.randn(5, 3, 2, 2)
    expected = torch.nn.functional.conv2d(pixels[None], matrix, stride=2)[0].reshape(5, -1).T
    assert_close(rows @ matrix.reshape(5, -1).T, expected)


def test_what_is_no_image_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ((1, 4, 4), (3, 4, 5)):
        with pytest.raises(InputError, match="does not fit"):
            images.patches(VIT, torch.zeros(shape))
    with pytest.raises(InputError, match="holds no image"):
        images.read(saved(tmp_path, numpy.zeros(5)), tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        images.read(tmp_path / "nowhere.npy", tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match="needs Pillow") as refused:
        images.read(tmp_path / "picture.png", tmp_path)
    assert "numpy.save" in refused.value.hint


SMALL: dict[str, Any] = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 4}, "crop_size": 4}


def pictured(folder: Path, settings: dict[str, Any], size: tuple[int, int], turned: int = 0) -> torch.Tensor:
    """Pixels of a picture of this size, whose left half is black, as a camera `turned` it."""
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    shown = numpy.zeros((size[1], size[0], 3), numpy.uint8)
    shown[:, size[0] // 2 :] = 255
    picture, exif = pil.fromarray(shown), pil.Exif()
    if turned:
        exif[0x0112] = turned
    picture.save(folder / "it.png", exif=exif)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return images.read(folder / "it.png", folder)


def test_a_picture_is_prepared_as_its_class_in_the_library_does(tmp_path: Path) -> None:
    square: dict[str, Any] = {
        "image_processor_type": "ViTImageProcessorFast",
        "size": 4,
        "image_mean": [0.0] * 3,
        "image_std": [1.0] * 3,
    }
    found = pictured(tmp_path, square, (8, 4))
    assert found.shape == (3, 4, 4) and 0 < found[0, 0, 1] < 0.5 < found[0, 0, 2] < 1  # squashed, not cut
    found = pictured(tmp_path, SMALL, (8, 4))
    assert found.shape == (3, 4, 4) and found[0, 0, 0] != found[0, 0, 3]
    mean, deviation = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    assert_close(found[:, 0, 0], -mean / deviation)
    assert pictured(tmp_path, SMALL | {"do_resize": False, "do_center_crop": False}, (8, 4)).shape == (3, 4, 8)
    assert float(pictured(tmp_path, square | {"do_rescale": False}, (4, 4)).max()) == 255


def test_a_picture_is_read_as_it_was_held(tmp_path: Path) -> None:
    settings = {"size": 4, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    assert pictured(tmp_path, settings, (4, 4))[0, :, 0].tolist() == [0, 0, 0, 0]
    assert pictured(tmp_path, settings, (4, 4), turned=6)[0, :, 0].tolist() == [0, 0, 1, 1]  # by a quarter


def test_settings_that_say_nothing_known_are_refused(tmp_path: Path) -> None:
    file, image = tmp_path / "preprocessor_config.json", saved(tmp_path, numpy.zeros((4, 4, 3), numpy.uint8))
    for content in ('{"image_processor_type": "ConvNextImageProcessor"}', "{", "[]"):
        file.write_text(content)
        with pytest.raises(CheckpointError):
            images.read(image, tmp_path)
    file.write_text('{"do_rescale": false, "do_normalize": false}')
    assert float(images.read(saved(tmp_path, numpy.full((4, 4, 3), 255, numpy.uint8)), tmp_path).max()) == 255
    file.unlink()
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    image = saved(tmp_path, numpy.zeros((4, 4, 3), numpy.uint8))
    assert_close(images.read(image, tmp_path)[0, 0, 0], torch.tensor(-0.48145466 / 0.26862954))
