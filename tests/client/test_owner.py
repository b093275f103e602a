"""The owner shares a model with a few of its tensors in memory, however many it has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from puma.models.checkpoint import configure
from puma.models.families import FAMILIES
from tests.models import tiny

MIB = 1 << 20

# What `puma share` does before links and after them, with parties that listen and say nothing but that all is well.
CHILD = """
import json, resource, sys
import torch
from puma.wire import messages as msg
from puma.reference.plain_model import PlainModel
from puma.client.channel import PartyChannel
from puma.client.owner import Owner, card_of
from puma.store.models import content_name

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

class Silent:
    peer, lost, sent = "nobody", False, 0
    def send(self, *frames): Silent.sent += sum(len(f) for f in frames)
    def send_control(self, payload):
        self.last = msg.decode_request(payload)
        self.more = 2 if isinstance(self.last, msg.Offer) else 1
    def recv_control(self):
        self.more -= 1
        if isinstance(self.last, msg.Offer):
            return msg.encode(msg.Held(0 if self.more else len(self.last.tensors)))
        return msg.encode(msg.Report([], 0.0, 0.0, 0.0, 0.0))
    def close(self): pass

def share(folder):
    clear = PlainModel(folder)
    params = clear.params
    content_name(bytes(16), "x", clear.config, params)
    Owner(PartyChannel([Silent(), Silent(), Silent()])).upload(clear.config, params, card_of("x", "1", {}))

torch.set_num_threads(1)
share(sys.argv[1])
before, Silent.sent = peak(), 0
share(sys.argv[2])
print(json.dumps({"grown": peak() - before, "sent": Silent.sent}))
"""


def checkpoint(folder: Path, layers: int) -> Path:
    """A LLaMA of 40 MiB a layer, 8 MiB its largest tensors, in a file for each layer."""
    settings = tiny.LLAMA | {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "intermediate_size": 2048,
        "num_hidden_layers": layers, "num_attention_heads": 16, "num_key_value_heads": 16,
    }  # fmt: skip
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    shapes = FAMILIES["LlamaForCausalLM"].tensors(configure("LlamaForCausalLM", settings, set()))
    files: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        number = name.split(".")[2] if ".layers." in name else "rest"
        files.setdefault(f"{number}.safetensors", {})[name] = shape
    for file, held in files.items():
        save_file({name: torch.randn(shape) * shape[-1] ** -0.5 for name, shape in held.items()}, folder / file)
    index = {name: file for file, held in files.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    tiny.tokenizer("<s> $A").save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.slow
def test_the_owners_peak_memory_is_a_few_tensors(tmp_path: Path) -> None:
    """400 MiB of weights are read, proven, named and masked; the process grows by a few of their 8 MiB."""
    one, ten = checkpoint(tmp_path / "one", 1), checkpoint(tmp_path / "ten", 10)
    done = subprocess.run([sys.executable, "-c", CHILD, one, ten], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["sent"] > 2 * 6 * 100 * MIB  # 100 Mi words of six bytes, to each evaluator
    assert found["grown"] < 6 * 8 * MIB
