"""How much memory the owner's program takes for a checkpoint of published width: read, proven and calibrated.

    python -m benchmarks.owner.memory --layers 10

Each way of quantising is a process of its own, whose largest resident memory Linux counts; the weights are made up, and
written without ever being whole in memory. The table in docs/benchmarks.md is its output.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy
import torch
from safetensors.torch import save_file
from torch import Tensor

from puma.models import ranges
from puma.models.checkpoint import load
from puma.models.text import Tokens
from puma.reference.calibration import observe

EACH = 128  # inputs of a group, or the side of a block
BLOCK = 64  # numbers that share a largest one in nf4
TEXTS, LENGTH = 8, 64
NORM, NORMS = "model.norm.weight", ("input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class Sizes:
    """LLaMA-7B's, unless others are given."""

    layers: int
    width: int = 4096
    inner: int = 11008
    heads: int = 32
    vocabulary: int = 32000

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """(out, in) of each in a layer."""
        square, wide = (self.width, self.width), (self.inner, self.width)
        attention = dict.fromkeys([f"self_attn.{name}_proj" for name in "qkvo"], square)
        return attention | {"mlp.gate_proj": wide, "mlp.up_proj": wide, "mlp.down_proj": (self.width, self.inner)}

    @property
    def weights(self) -> int:
        """All of them."""
        return self.layers * sum(map(math.prod, self.matrices.values())) + self.vocabulary * self.width


Parts = dict[str, Tensor]


def _words(*shape: int) -> Tensor:
    return torch.randint(-(1 << 31), 1 << 31, shape, dtype=torch.int32)


def _scales(*shape: int) -> Tensor:
    return torch.full(shape, 0.002, dtype=torch.float16)


def plain(out: int, size: int) -> Parts:
    return {"weight": (torch.randn(out, size) * size**-0.5).half()}


def gptq(out: int, size: int) -> Parts:
    zeros = torch.full((size // EACH, out // 8), 0x77777777, dtype=torch.int32)
    return {"qweight": _words(size // 8, out), "qzeros": zeros, "scales": _scales(size // EACH, out)}


def awq(out: int, size: int) -> Parts:
    zeros = torch.full((size // EACH, out // 8), 0x77777777, dtype=torch.int32)
    return {"qweight": _words(size, out // 8), "qzeros": zeros, "scales": _scales(size // EACH, out)}


def fp8(out: int, size: int) -> Parts:
    scales = torch.full((out // EACH, size // EACH), size**-0.5)
    return {"weight": torch.randn(out, size).to(torch.float8_e4m3fn), "weight_scale_inv": scales}


def compressed(out: int, size: int) -> Parts:
    numbers = {"weight_packed": _words(out, size // 8), "weight_scale": _scales(out, size // EACH)}
    return numbers | {"weight_shape": torch.tensor([out, size])}


def nf4(out: int, size: int) -> Parts:
    state = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": "bfloat16", "shape": [out, size]}
    return {
        "weight": torch.randint(0, 256, (out * size // 2, 1), dtype=torch.uint8),
        "weight.absmax": torch.full((out * size // BLOCK,), 3 * size**-0.5),
        "weight.quant_map": torch.linspace(-1, 1, 16),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }


SETTINGS = {
    "fp16": None,
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": EACH},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": EACH, "version": "gemm"},
    "fp8": {"quant_method": "fp8", "weight_block_size": [EACH, EACH]},
    "compressed-tensors": {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
            "num_bits": 4, "type": "int", "strategy": "group", "group_size": EACH, "symmetric": True,
        }}},
    },
    "nf4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}  # fmt: skip
MAKERS: dict[str, Callable[[int, int], Parts]] = {
    "fp16": plain, "gptq": gptq, "awq": awq, "fp8": fp8, "compressed-tensors": compressed, "nf4": nf4,
}  # fmt: skip


def write(folder: Path, kind: str, sizes: Sizes) -> Path:
    """A LLaMA of these sizes, a file for each layer."""
    if kind == "gguf":
        return write_gguf(folder, sizes)
    settings = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": sizes.width,
        "vocab_size": sizes.vocabulary, "intermediate_size": sizes.inner, "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "quantization_config": SETTINGS.get(kind),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    table = torch.randn(sizes.vocabulary, sizes.width).half()
    index = _saved(folder / "0.safetensors", {"model.embed_tokens.weight": table, NORM: torch.ones(sizes.width)})
    for layer in range(sizes.layers):
        tensors = {f"model.layers.{layer}.{norm}.weight": torch.ones(sizes.width) for norm in NORMS}
        for name, shape in sizes.matrices.items():
            tensors |= {f"model.layers.{layer}.{name}.{part}": t for part, t in MAKERS[kind](*shape).items()}
        index |= _saved(folder / f"{layer + 1}.safetensors", tensors)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def _saved(path: Path, tensors: Parts) -> dict[str, str]:
    save_file(tensors, path)
    return dict.fromkeys(tensors, path.name)


def write_gguf(folder: Path, sizes: Sizes) -> Path:
    """The same as Q4_1 in one file: every matrix of a shape is the same one, quantised once."""
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    names |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
    kind = gguf.GGMLQuantizationType.Q4_1
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    for add, value in (
        (writer.add_context_length, 2048), (writer.add_embedding_length, sizes.width),
        (writer.add_block_count, sizes.layers), (writer.add_feed_forward_length, sizes.inner),
        (writer.add_head_count, sizes.heads), (writer.add_head_count_kv, sizes.heads),
    ):  # fmt: skip
        add(value)
    writer.add_layer_norm_rms_eps(1e-5)
    packed = {shape: _quantised(shape, kind) for shape in {*sizes.matrices.values()}}
    writer.add_tensor("token_embd.weight", _quantised((sizes.vocabulary, sizes.width), kind), raw_dtype=kind)
    writer.add_tensor("output_norm.weight", numpy.ones(sizes.width, numpy.float32))
    for layer in range(sizes.layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", numpy.ones(sizes.width, numpy.float32))
        for name, shape in sizes.matrices.items():
            ours = names[name.partition(".")[2]]
            writer.add_tensor(f"blk.{layer}.{ours}.weight", packed[shape], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf"


def _quantised(shape: tuple[int, int], kind: gguf.GGMLQuantizationType) -> numpy.ndarray:
    return gguf.quantize((numpy.random.default_rng(0).standard_normal(shape, numpy.float32) * shape[1] ** -0.5), kind)


def measured(path: Path) -> Iterator[tuple[str, int, float]]:
    """What was done, the largest resident memory up to then, and its seconds."""
    started = time.perf_counter()
    yield "start", _largest(), 0.0
    checkpoint = load(path)
    params, config = checkpoint.fold(), checkpoint.config
    for name in params:
        params[name]
    yield "read", _largest(), time.perf_counter() - started
    started = time.perf_counter()
    ranges.check_weights(params)
    list(ranges.bounds(config, params))
    yield "proofs", _largest(), time.perf_counter() - started
    started = time.perf_counter()
    given = [Tokens([(7 * i + k) % config.vocab_size for i in range(LENGTH)], [0] * LENGTH) for k in range(TEXTS)]
    observe(config, params, given, lambda *_: None)
    yield "calibration", _largest(), time.perf_counter() - started


def _largest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main() -> None:
    """Write, measure in processes, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.owner.memory")
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--kinds", default="fp16,gptq,awq,fp8,compressed-tensors,nf4,gguf")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps([*measured(asked.measure)]))
        return
    print("| weights | file GB | as float32 GB | start | read | proofs | calibration | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for kind in asked.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            _show(kind, Path(folder), Sizes(asked.layers))


def _show(kind: str, folder: Path, sizes: Sizes) -> None:
    path = write(folder, kind, sizes)
    size, whole = sum(file.stat().st_size for file in folder.iterdir()), 4 * sizes.weights
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.owner.memory", "--measure", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    steps = json.loads(done.stdout)
    cells = [f"{taken / 1e9:.2f}" for _, taken, _ in steps]
    seconds = " + ".join(f"{spent:.0f}" for _, _, spent in steps[1:])
    print(f"| {kind} | {size / 1e9:.2f} | {whole / 1e9:.2f} | {' | '.join(cells)} | {seconds} |", flush=True)


if __name__ == "__main__":
    main()
