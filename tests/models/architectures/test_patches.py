"""A classifier written in plain torch: the same logits, by its description in words; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from torch.testing import assert_close

from puma.errors import RangeError, TensorError, UnsupportedModel
from puma.models import architecture, images, ranges
from puma.models.architectures import patches
from puma.models.checkpoint import load
from puma.models.config import PatchEncoder
from puma.reference.plain_model import PlainModel
from tests.models import plain_torch
from tests.models.plain import check_usual


def test_logits_are_those_of_plain_torch(tmp_path: Path) -> None:
    checkpoint = load(plain_torch.write(tmp_path))
    config = checkpoint.config
    assert isinstance(config, PatchEncoder) and (config.layers, config.heads, config.image_size) == (2, 2, 6)
    rows = torch.randn(3, 9, 4)
    with torch.no_grad():
        expected = plain_torch.model()(rows)
    model = architecture(config).model(config, checkpoint.fold())
    assert_close(model.classify(model(rows.reshape(27, 4))), expected, atol=1e-5, rtol=1e-5)


def test_bytes_are_normalised_as_config_json_says(tmp_path: Path) -> None:
    clear = PlainModel(plain_torch.write(tmp_path))
    image = numpy.arange(36, dtype=numpy.uint8).reshape(6, 6)
    expected = images.patches(clear.config, (torch.arange(36.0).reshape(1, 6, 6) / 255 - 0.1) / 0.4)
    assert_close(clear.read(image).ids, expected)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0.5]}')
    assert_close(images.prepared(image, tmp_path, "")[0, 0, 0], torch.tensor(-1.0))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seq_len": 8}, "no square"),
        ({"patch": None}, "patch and seq_len"),
        ({"arch": plain_torch.CONFIG["arch"].replace("exact GELU", "ReLU")}, "does not describe"),  # type: ignore[attr-defined]
        ({"arch": plain_torch.CONFIG["arch"].replace("post-LN", "pre-LN")}, "no architecture"),  # type: ignore[attr-defined]
        ({"d_model": 9}, "d_model is not a multiple"),
    ],
)
def test_what_is_described_otherwise(changes: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=says):
        load(plain_torch.write(tmp_path, **changes))


def test_weights_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(TensorError, match="expected"):
        load(plain_torch.write(tmp_path, num_labels=4))


def test_bounds_hold_and_refuse(tmp_path: Path) -> None:
    """The first layer reads pixels: no image within their limit exceeds what is proven."""
    checkpoint = load(plain_torch.write(tmp_path))
    config, params = checkpoint.config, dict(checkpoint.fold())
    found = {name: bound for name, bound, _ in ranges.bounds(config, params)}
    rows = (torch.rand(200, 9, 4) * 2 - 1).sign() * patches.PIXEL
    x = rows @ params["patches.weight"].T + params["positions.weight"]
    name = "layers.0.attention.self.value"
    values = x @ params[f"{name}.weight"].T + params[f"{name}.bias"]
    assert found[name] / 20 < float(values.abs().max()) < found[name]
    params["layers.0.attention.self.value.weight"] *= 100
    with pytest.raises(RangeError, match="a value"):
        check_usual(config, params)
