"""Every kind of numbers that the package can dequantise is read as it dequantises it, and nothing else is read."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import torch

from puma.errors import CheckpointError, TensorError, UnsupportedModel
from puma.models.checkpoint import load
from puma.models.files.gguf import header, numbers
from puma.models.files.source import Unchanged
from tests.models import tiny
from tests.models.files import ggufs

KINDS = [gguf.GGMLQuantizationType[name] for name in (
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S",
    "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4",
)]  # fmt: skip
SHAPE = (37, 512)


def stored(path: Path, kind: Any, shape: tuple[int, ...] = SHAPE) -> Path:
    """A file with one tensor of random blocks: every byte means something."""
    of, size = gguf.GGML_QUANT_SIZES[kind]
    generator = numpy.random.default_rng(int(kind))
    if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
        numpy_kind = numpy.float32 if size == 4 else numpy.float16
        rows = generator.standard_normal(shape).astype(numpy_kind).view(numpy.uint8)
    else:
        rows = generator.integers(0, 256, (*shape[:-1], shape[-1] // of * size), numpy.uint8)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("something", numpy.zeros(3, numpy.float32))
    writer.add_tensor("blocks", rows, raw_dtype=kind)
    ggufs.finish(writer)
    return path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_kinds(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path / "model.gguf", kind)
    theirs = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "blocks")
    with numpy.errstate(all="ignore"):
        right = torch.from_numpy(gguf.dequantize(theirs.data, theirs.tensor_type).astype(numpy.float32).copy())
    place = header.read(path).places["blocks"]
    monkeypatch.setattr(numbers, "BLOCK_BYTES", 4000)  # several blocks of rows, and one that is not full
    found = numbers.entry(place, Unchanged(path), "blocks").read()
    assert found.dtype == torch.float32
    assert found.shape == SHAPE
    torch.testing.assert_close(found, right, atol=0, rtol=0, equal_nan=True)


def test_all_kinds_of_the_package_are_tried() -> None:
    can = set()
    for kind in gguf.GGMLQuantizationType:
        try:
            numbers.stored_bytes(header.Place(Path("x"), "x", (1, 256), int(kind), 0))
            can.add(kind)
        except UnsupportedModel:
            pass
    double = {gguf.GGMLQuantizationType.F64}
    assert can - double - set(KINDS) <= {kind for kind in can if kind.name == "NVFP4"}
    assert set(KINDS) <= can


def test_float64(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    right = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    writer.add_tensor("blocks", right.numpy())
    ggufs.finish(writer)
    found = numbers.numbers(header.read(tmp_path / "model.gguf").places["blocks"])
    assert torch.equal(found, right.float())


@pytest.mark.parametrize("kind", ["I8", "I32", "Q8_1", "Q8_K"])
def test_kinds_that_cannot_be_read(kind: str) -> None:
    place = header.Place(Path("model.gguf"), "blocks", (2, 256), int(gguf.GGMLQuantizationType[kind]), 0)
    with pytest.raises(UnsupportedModel, match=kind) as caught:
        numbers.numbers(place)
    assert "Q8_0" in caught.value.hint


def test_a_kind_that_nobody_knows(tmp_path: Path) -> None:
    """Such as those that llama.cpp has taken out again."""
    path = ggufs.write(tmp_path / "model.gguf", tiny.llama(tmp_path / "folder"))
    place = header.read(path).places["output_norm.weight"]
    content, name = path.read_bytes(), b"output_norm.weight"
    at = content.index(name) + len(name) + 4 + 8
    assert struct.unpack_from("<I", content, at) == (place.kind,)
    path.write_bytes(content[:at] + struct.pack("<I", 31) + content[at + 4 :])
    with pytest.raises(UnsupportedModel, match="kind 31"):
        load(path)


def test_rows_that_are_no_whole_blocks() -> None:
    place = header.Place(Path("model.gguf"), "blocks", (2, 40), int(gguf.GGMLQuantizationType.Q4_0), 0)
    with pytest.raises(TensorError, match="no multiple of its blocks of 32"):
        numbers.stored_bytes(place)


def test_a_file_that_ends_early(tmp_path: Path) -> None:
    path = stored(tmp_path / "model.gguf", gguf.GGMLQuantizationType.Q8_0)
    path.write_bytes(path.read_bytes()[:-100])
    place = header.read(path).places["blocks"]
    with pytest.raises(CheckpointError, match="ends before blocks does"):
        numbers.entry(place, Unchanged(path), "blocks")
    with pytest.raises(CheckpointError, match="ends before blocks does"):
        numbers.numbers(place)


@pytest.mark.parametrize("kind", ["Q8_0", "BF16"])
def test_a_quantised_model(kind: str, tmp_path: Path) -> None:
    """Queries are put in order after they are dequantised: rows are whole blocks, and stay what they are."""
    folder = tiny.llama(tmp_path / "folder", hidden_size=32, intermediate_size=64)
    path = ggufs.write(tmp_path / "model.gguf", folder, gguf.GGMLQuantizationType[kind])
    right, largest = load(folder).state, 0.0
    for name, tensor in load(path).state.items():
        largest = max(largest, float((tensor - right[name]).abs().max()))
        torch.testing.assert_close(tensor, right[name], atol=0.03, rtol=0.01)
    assert largest > 1e-4  # it has been quantised


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read before it is asked for, and nothing that was read is kept."""
    read: list[str] = []
    original = numbers.numbers

    def watched(place: header.Place) -> torch.Tensor:
        read.append(place.name)
        return original(place)

    monkeypatch.setattr(numbers, "numbers", watched)
    state = load(ggufs.write(tmp_path / "model.gguf", tiny.llama(tmp_path / "folder"))).state
    assert not read
    assert state["lm_head.weight"] is not state["lm_head.weight"]
    assert read == ["output.weight"] * 2
