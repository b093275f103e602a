"""What torch computes with deferred tensors is what it computes with tensors, and only what is in use takes memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from puma.errors import UsageError
from puma.models.checkpoint import load
from puma.models.deferred import Folded, deferred
from tests.models import tiny, zoo
from tests.models.plain import check_usual


class Watched(Mapping[str, Tensor]):
    """Tensors as they are looked up, and how many of those were alive at a time at most."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._alive = weakref.WeakSet[Tensor]()
        self.reads = self.most = 0

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        self._alive.add(tensor)
        self.reads, self.most = self.reads + 1, max(self.most, len(self._alive))
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: x * y + 1,
        lambda x, y: x.T.contiguous()[1:],
        lambda x, y: torch.cat([x, y.expand(3, -1)]),
        lambda x, y: list(x.split([1, 3]))[1],
        lambda x, y: list(x.reshape(2, 2, -1).transpose(0, 1))[1].reshape(-1),
        lambda x, y: x[:, torch.tensor([4, 0])],
        lambda x, y: x @ y,
    ],
)
def test_computations_are_those_of_torch(change: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, y = torch.randn(4, 5), torch.randn(5)
    later = change(deferred((4, 5), lambda: x), deferred((5,), lambda: y))
    now = change(x, y)
    assert later.shape == now.shape
    assert torch.equal(Folded({"x": later})["x"], now)


def test_parts_of_one_result_are_computed_once() -> None:
    """As the experts of a layer, which lie in one tensor and are put side by side."""
    reads = list[int]()

    def read() -> Tensor:
        reads.append(1)
        return torch.arange(24.0).reshape(4, 3, 2)

    experts = [expert.T * 2 for expert in deferred((4, 3, 2), read).unbind(0)]
    found = Folded({"x": torch.cat(experts), "y": experts[1]})
    assert found["x"].shape == (8, 3) and len(reads) == 1
    assert torch.equal(found["y"], found["x"][2:4]) and len(reads) == 3


def test_nothing_is_read_before_it_is_looked_up_and_nothing_is_kept() -> None:
    reads = []

    def read() -> Tensor:
        reads.append(1)
        return torch.ones(3)

    params = Folded({"x": deferred((3,), read) * 2})
    assert "x" in params and len(params) == 1 and list(params) == ["x"] and not reads
    assert torch.equal(params["x"], torch.full((3,), 2.0))
    assert torch.equal(params["x"], torch.full((3,), 2.0)) and len(reads) == 2


def test_what_is_looked_up_holds_no_more_memory_than_its_own() -> None:
    part = Folded({"x": deferred((8, 4), lambda: torch.ones(8, 4))[2:4]})["x"]
    assert part.untyped_storage().nbytes() == part.nbytes


def test_changes_in_place_are_refused() -> None:
    with pytest.raises(UsageError, match="changes a tensor"):
        deferred((3,), lambda: torch.ones(3)).mul_(2)


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3", "neox", "t5-gated", "Bert-MaskedLM", "vit"])
def test_a_checkpoint_is_proven_and_folded_with_few_tensors_in_memory(name: str, tmp_path: Path) -> None:
    tiny_one = {"llama": tiny.llama, "gpt2": tiny.gpt2}.get(name)
    checkpoint = load(tiny_one(tmp_path) if tiny_one else zoo.write(tmp_path, name))
    watched = Watched(checkpoint.state)
    params = replace(checkpoint, state=watched).fold()
    check_usual(checkpoint.config, params)
    for tensor in params:
        params[tensor]
    assert watched.reads > 2 * len(watched) and watched.most <= 4 < len(watched)
