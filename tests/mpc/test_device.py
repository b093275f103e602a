"""Nothing that a party computes assumes the host: every case runs on another device and gives the same words."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch

import puma
from puma import kernels
from puma.crypto.prg import PairKey
from puma.mpc.party import Party
from puma.mpc.share import Additive, Share
from tests import elsewhere
from tests.case import Case, parts, secrets_in
from tests.cases import CASES
from tests.trio import parties, trio
from tests.watch import once

ROOT = Path(puma.__file__).parent


def rings(result: Any) -> list[int]:
    """For each part of a result the bits of its words that mean anything."""
    return [s.bits if isinstance(s, Share | Additive) else 64 for s in secrets_in(result) for _ in parts(s)]


class Away(Party):
    """A party on the other device."""

    def __init__(self, *args: Any, **options: Any) -> None:
        with elsewhere.device():
            super().__init__(*args, device=elsewhere.DEVICE, **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_another_device_gives_the_same_words(case: Case) -> None:
    def run(party: Party) -> Any:
        with elsewhere.device():
            result = case.run(party)
            rings(result)  # some words are made when somebody looks, which is to happen here
            return result

    members = trio(kind=Away)
    for rank, (here, there) in enumerate(zip(once(case).results, parties(run, members), strict=True)):
        for bits, ours, theirs in zip(rings(here), parts(here), parts(there), strict=True):
            if ours is not None and not ours.is_meta:
                assert isinstance(theirs, elsewhere.Elsewhere), f"P{rank} holds this on the host"
                assert torch.equal(kernels.signed(theirs.inner, bits), kernels.signed(ours, bits))
    assert [p.ledger.total().online for p in members] == [p.ledger.total().online for p in once(case).members]


def test_the_device_would_notice() -> None:
    """What the check stands on: mixing devices and looking into a tensor from outside kernels fails."""
    with elsewhere.device():
        x = torch.arange(3, device=elsewhere.DEVICE)
        assert x.device == elsewhere.DEVICE and not x.is_cpu and (x + x).device == elsewhere.DEVICE
        with pytest.raises(AssertionError, match="two devices"):
            x + torch.arange(3)
        with pytest.raises(RuntimeError):
            x.numpy()
        assert isinstance(PairKey(b"k" * 32).stream("test").words(3, elsewhere.DEVICE), elsewhere.Elsewhere)


# Images are decoded on the client's host, and files on the owner's.
FILES = ("models/images.py", "models/hearing/files.py", "models/files/gguf/numbers.py", "reference/calibration.py")
OUTSIDE = ("kernels", "crypto/prg.py", *FILES)


def test_only_kernels_go_between_a_device_and_the_host() -> None:
    for path in ROOT.rglob("*.py"):
        name = str(path.relative_to(ROOT))
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)]
        found = [n.lineno for n in calls if n.attr in ("numpy", "from_numpy", "frombuffer") and not _of_numpy(n)]
        assert not found or name.startswith(OUTSIDE), f"{name}:{found}: kernels.to_wire and kernels.from_wire do that"


def _of_numpy(node: ast.Attribute) -> bool:
    """numpy's own functions on bytes of the host."""
    return ast.unparse(node.value) in ("np", "numpy")
