"""What an owner keeps of an upload so that canaries can be computed again: the plan of it with its seeds, and the
weights as they were shared.

The file holds the seeds of all masks: with an evaluator's disk it gives the weights away, so it is as secret as these.
This file must not know sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from torch import Tensor

from puma.client.resume import Plan
from puma.errors import StoreError
from puma.store import folders

_plans = msgspec.json.Decoder(Plan)


@dataclass(frozen=True, repr=False)
class Shared:
    """A model as its owner shared it."""

    plan: Plan
    params: Mapping[str, Tensor]


def write(path: Path, plan: Plan) -> None:
    """A new file, for its owner alone; StoreError if there is one."""
    with folders.explained(f"the sharing {path}"):
        folders.write_new(path, msgspec.json.encode(plan) + b"\n")


def kept(path: Path) -> Plan:
    """What `puma share --keep` wrote; StoreError if it is none."""
    with folders.explained(f"the sharing {path}"):
        content = path.read_bytes()
    try:
        return _plans.decode(content)
    except (ValueError, msgspec.MsgspecError):
        raise StoreError(f"{path} is no sharing of a model", "`puma share --keep FILE` writes one") from None
