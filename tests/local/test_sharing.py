"""What an owner sends: masked words in frames, each tensor once, and parameters that are one tensor twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from puma import kernels
from puma.client import masking
from puma.client.masking import masked
from puma.crypto.prg import PairKey
from puma.local.cluster import Trio
from puma.measure import bench
from puma.measure.bench import RandomParams
from puma.models.presets import preset
from puma.party import loading
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg

SEEDS = [b"1" * 32, b"2" * 32]


class Frames:
    """A client's link on which frames wait."""

    def __init__(self, frames: list[bytes]) -> None:
        self.frames = deque(frames)

    def recv(self, size: int) -> memoryview:
        assert len(self.frames[0]) == size
        return memoryview(bytearray(self.frames.popleft()))


@pytest.mark.parametrize("bits", [48, 37])
@pytest.mark.parametrize("words", [1 << 20, 128])
def test_frames_of_masked_words(bits: int, words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """m less the masks is the tensor, in frames of so many words, made in pieces of 50."""
    for module in (masking, loading):
        monkeypatch.setattr(module, "FRAME_WORDS", words)
    monkeypatch.setattr(masking, "PIECE_WORDS", 50)
    x, spec = torch.linspace(-2, 2, 300).reshape(20, 15), msg.TensorSpec("w", (20, 15), bits, 18)
    frames = [bytes(frame.numpy()) for frame in masked(x, spec, SEEDS, "weight w")]
    assert len(frames) == -(-300 // words)
    m = kernels.unpack_bytes(torch.cat(list(loading.frames(Frames(frames), spec))), bits, (300,))
    width = (bits + 7) // 8
    for seed in SEEDS:
        m = m - kernels.unpack_bytes(PairKey(seed).stream("weight w").bytes(300 * width), bits, (300,))
    assert torch.equal(kernels.signed(m, bits), torch.round(x.double() * 2**18).long().reshape(-1))


@pytest.mark.processes
def test_a_layer_used_twice(checkpoints: dict[str, Path], processes: Trio) -> None:
    model = PlainModel(checkpoints["llama"])
    alias = {name: bench.LAYER.sub(".0.", name, count=1) for name in model.params if ".layers.1." in name}
    assert alias
    sent: Mapping[str, Any] = {name: tensor for name, tensor in model.params.items() if name not in alias}
    processes.share(model.config, sent, alias=alias)
    repeated = {name: sent[alias.get(name, name)] for name in model.params}
    plain = Plain(model.config, repeated).encode([[3, 1, 4]], "hidden")[0]
    assert_close(processes.session.encode([[3, 1, 4]], "hidden")[0], plain.double(), atol=0.02, rtol=0)


def test_large_random_models_repeat_their_first_layer() -> None:
    assert not RandomParams(preset("llama-7b", 1)).alias and not RandomParams(preset("gpt2-large")).alias
    params = RandomParams(preset("llama-7b"))
    own = [name for name in params if name not in params.alias]
    assert len(own) == 7 + 3 and len(params.alias) == 31 * 7 and set(params.alias.values()) < set(own)
    assert params.alias["model.layers.17.mlp.up_proj.weight"] == "model.layers.0.mlp.up_proj.weight"
    for name, source in params.alias.items():
        assert params._shapes[name] == params._shapes[source]
