"""Where folded parameters lie, and that the words made of what lies there are those that an owner would share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from puma import kernels
from puma.errors import RangeError
from puma.kernels import Stored
from puma.models.checkpoint import Checkpoint, load
from puma.models.unfolded.laid import Laid, laid
from puma.models.unfolded.traced import traced
from puma.wire.parameters import parameter_frac, tensor_specs
from tests.models import sentences, tiny

SLACK = 1  # units: a matrix with two factors rounds once less


def halved(folder: Path, dtype: torch.dtype) -> Path:
    """The checkpoint with numbers of two bytes."""
    for path in folder.glob("*.safetensors"):
        save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    return folder


def found(checkpoint: Checkpoint) -> dict[str, Laid]:
    return {each.name: each for each in laid(checkpoint.fold(), parameter_frac)}


def words(each: Laid) -> torch.Tensor:
    matrix = Stored(each.raw(), each.kind, each.shape[-1], each.factors)
    return kernels.spread(matrix, parameter_frac(each.name)).reshape(each.shape)


@pytest.mark.parametrize(("dtype", "kind"), [(torch.bfloat16, "bf16"), (torch.float16, "f16"), (torch.float32, "f32")])
def test_matrices_of_a_decoder_stay_in_their_file(tmp_path: Path, dtype: torch.dtype, kind: str) -> None:
    """Norms are factors of columns, and so is what queries are scaled by; nothing of a matrix's size is written."""
    checkpoint = load(halved(tiny.llama(tmp_path), dtype))
    params = checkpoint.fold()
    for name, each in found(checkpoint).items():
        assert (each.file is not None) is (len(each.shape) == 2), name
        assert each.kind == (kind if each.file else "i32"), name
        exact = torch.round(params[name].double() * 2.0 ** parameter_frac(name)).long()
        assert int((words(each) - exact).abs().max()) <= SLACK, name


def test_those_of_other_models_are_the_same_words(tmp_path: Path) -> None:
    """A GPT-2 stores its matrices the other way, a BERT has tables and biases: what lies nowhere is written down."""
    for make in (tiny.gpt2, tiny.bert, tiny.classifier):
        checkpoint = load(halved(make(tmp_path / make.__name__), torch.bfloat16))
        specs, parts = {spec.name: spec for spec in tensor_specs(checkpoint.config)}, found(checkpoint)
        assert list(parts) == list(specs)
        for name, value in checkpoint.fold().items():
            exact = torch.round(value.double() * 2.0 ** parameter_frac(name)).long()
            assert parts[name].shape == specs[name].shape
            assert int((words(parts[name]) - exact).abs().max()) <= SLACK, name


def test_parts_of_a_fused_matrix_begin_where_they_lie(tmp_path: Path) -> None:
    """As Phi-3 has queries, keys and values in one matrix, and both halves of the MLP in another."""
    folder = halved(tiny.llama(tmp_path, num_key_value_heads=4), torch.bfloat16)
    before = load(folder).fold()
    expected = {name: before[name] for name in before if "_proj" in name}
    fused = {"self_attn.qkv": "qkv", "mlp.gate_up": ("gate", "up")}

    def fuse(state: dict[str, torch.Tensor]) -> None:
        for i in range(2):
            for name, parts in fused.items():
                room = f"model.layers.{i}.{name.partition('.')[0]}"
                own = [state.pop(f"{room}.{part}_proj.weight") for part in parts]
                state[f"model.layers.{i}.{name}_proj.weight"] = torch.cat(own)

    tiny.edit(folder, fuse)
    tiny.configure_folder(folder, architectures=["Phi3ForCausalLM"], model_type="phi3")
    parts = found(load(folder))
    for name, value in expected.items():
        assert parts[name].file is not None, name
        assert int((words(parts[name]) - torch.round(value.double() * 2**18).long()).abs().max()) <= SLACK, name


def test_a_head_that_is_made_of_two_rows_lies_nowhere(tmp_path: Path) -> None:
    """Of a model that is asked for two words' logits: where its head lay are other numbers."""
    checkpoint = load(halved(sentences.judge(tmp_path), torch.bfloat16))
    score = found(checkpoint)["score.weight"]
    exact = torch.round(checkpoint.fold()["score.weight"].double() * 2.0 ** parameter_frac("score.weight")).long()
    assert score.file is None and int((words(score) - exact).abs().max()) <= SLACK and bool(exact.any())


def test_what_was_done_besides_is_not_taken_for_a_factor(tmp_path: Path) -> None:
    params = load(tiny.llama(tmp_path)).fold()
    matrix = params.unread("model.layers.0.mlp.down_proj.weight")  # type: ignore[attr-defined]
    rows, columns = matrix.shape
    assert traced(matrix * 2.0).scale == 2.0  # type: ignore[union-attr]
    assert traced(matrix[3:7] * torch.ones(columns)).first == 3  # type: ignore[union-attr]
    assert traced(matrix.split(rows // 2)[1]).first == rows // 2  # type: ignore[union-attr]
    for other in (matrix.T, matrix + 1, matrix * torch.ones(rows, 1), matrix[:, 1:], matrix.exp(), matrix[0]):
        assert traced(other) is None


def test_a_weight_beyond_four_bytes_is_refused() -> None:
    (each,) = laid({"w": torch.tensor([3.0, 9000.1])}, lambda _: 18)
    with pytest.raises(RangeError, match="w has a weight beyond 8192"):
        each.raw()
