"""Open weights beside hidden ones, in turn on one machine; and the time from a folder on disk to the first token.

Ratios are those of one run: another load of the machine changes both. A checkpoint of LLaMA-7B's shape, random numbers
in bfloat16, is written for the last figure, with as many layers as the machine has room for.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.model_run import bench
from puma.client.public.content import parts
from puma.local.cluster import Trio
from puma.measure.bench import PUBLIC, STD, random_ids
from puma.models import in_the_open
from puma.models.checkpoint import load
from puma.models.families import FAMILIES

CASES = {
    "BERT-base, 128 tokens": ["bert-base", "--prompt", "128"],
    "LLaMA-7B, 8 in, 1 out": ["llama-7b", "--prompt", "8", "--tokens", "1"],
    "LLaMA-7B, 8 in, 2 out": ["llama-7b", "--prompt", "8", "--tokens", "2"],
}
QUICK = {"BERT-base, one layer, 16 tokens": ["bert-base", "--prompt", "16", "--layers", "1"]}
LAYER_BYTES, OTHER_BYTES, SPARE = 405 << 20, 525 << 20, 6 << 30  # of LLaMA-7B in two bytes a number; for all else
PROMPT = 8
FAMILY = "LlamaForCausalLM"
SETTINGS = {
    "architectures": [FAMILY], "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "vocab_size": 2000}

Say = Callable[[str], None]


def open_weights(runs: int, quick: bool, say: Say) -> dict[str, Any]:
    """Every case with hidden and with open weights, in turn; then from a folder to the first token."""
    cases = list[dict[str, Any]]()
    for title, words in (QUICK if quick else CASES).items():
        answers: dict[str, list[dict[str, Any]]] = {"hidden": [], "open": []}
        for _ in range(runs):
            for kind, found in answers.items():
                say(f"{title}, {kind}")
                found.append(bench([*words, "--no-error", *(["--open-weights"] if kind == "open" else [])]))
        both = {kind: _median(found) for kind, found in answers.items()}
        cases.append({"title": title, "command": f"puma bench {' '.join(words)}", "runs": runs} | both)
    say("from a folder to the first token")
    return {"cases": cases, "folder": from_folder(quick)}


def _median(answers: list[dict[str, Any]]) -> dict[str, Any]:
    spent = {key: statistics.median(a[key] for a in answers) for key in ("seconds", "cpu_seconds", "prefill_seconds")}
    peak = [max(a["peak_rss_mib"][rank] for a in answers) for rank in range(3)]
    return spent | {"peak_rss_mib": peak, "rounds": answers[0]["rounds"], "bytes": answers[0]["bytes"]}


def from_folder(quick: bool) -> dict[str, Any]:
    """Seconds from opening a folder on disk to the first token, by the usual number formats, and what parties hold."""
    with tempfile.TemporaryDirectory(prefix="puma-", dir="/var/tmp") as folder:
        room = min(_free(), shutil.disk_usage(folder).free) - OTHER_BYTES - SPARE
        layers = 2 if quick else max(1, min(32, room // LAYER_BYTES))
        write(Path(folder), SETTINGS | {"num_hidden_layers": layers} | (SMALL if quick else {}))
        started = time.perf_counter()
        checkpoint = load(folder)
        config = in_the_open(checkpoint.config)
        with Trio() as trio:
            found = parts(config, checkpoint.fold())
            trio.open_up(config, found)
            opened = time.perf_counter() - started
            next(iter(trio.session.continued(random_ids(config, [PROMPT]), 1)))
            seconds = time.perf_counter() - started
            cost = trio.session.cost
            held = [_memory(pid) for pid in trio.pids]
        stored = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    assert cost is not None
    mapped = sum(part.laid.size for part in found if not part.factors and part.laid.file is not None)
    return {
        "layers": layers, "bytes": stored, "mapped": mapped, "opened_seconds": opened, "first_token_seconds": seconds,
        "resident": [each[0] for each in held], "own": [each[1] for each in held], "prefill_seconds": cost.prefill,
    }  # fmt: skip


def write(folder: Path, settings: dict[str, Any]) -> None:
    """A checkpoint of these settings in bfloat16, a file for each layer; random numbers from the public key."""
    (folder / "config.json").write_text(json.dumps(settings))
    family = FAMILIES[FAMILY]
    config = family.read(settings, set())
    files: dict[str, dict[str, torch.Tensor]] = {}
    index: dict[str, str] = {}
    shapes = family.tensors(config)
    for name, shape in shapes.items():
        where = f"model-{name.split('.')[2] if '.layers.' in name else 'ends'}.safetensors"
        index[name] = where
        files.setdefault(where, {})[name] = torch.empty(shape, device="meta")
    for where, tensors in files.items():
        save_file({name: _random(name, tuple(tensor.shape)) for name, tensor in tensors.items()}, folder / where)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def _random(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    raw = PUBLIC.stream(f"halves {name}").bytes(torch.Size(shape).numel()).view(torch.int8)
    return raw.to(torch.float32).mul_(STD * 3**0.5 / 128).to(torch.bfloat16).reshape(shape)


def _free() -> int:
    """Bytes of memory that could be had."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _memory(pid: int) -> tuple[int, int]:
    """Bytes that a process has in memory, and those of them that no file is mapped to."""
    kept = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "RssAnon"):
            kept[name] = int(rest.split()[0]) << 10
    return kept["VmRSS"], kept["RssAnon"]
