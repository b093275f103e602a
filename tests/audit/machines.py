"""What is computed in floating point and rounded before it is hashed, and a whole canary: digests to be compared.

python -m tests.audit.machines tables
python -m tests.audit.machines canary REPORT [CHECKPOINT SHARING]
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from puma.audit import report as reports
from puma.audit.replay import replayed
from puma.audit.shared import Shared, in_the_open, kept
from puma.audit.verdict import secrets_of
from puma.models.architectures.relative import Disentangled, buckets, rounded
from puma.models.fields import Rope
from puma.models.rope import frequencies
from puma.mpc.share import encode
from puma.nn import delta, gates, roots, sampling, splines
from puma.nn.functional import ROTARY
from puma.nn.modules import rotary_angles
from puma.nn.splines import Spline
from puma.reference.plain_model import PlainModel
from puma.wire import canaries

ROPES = {
    "plain": Rope(), "theta": Rope(theta=5e5), "linear": Rope(scaling="linear", factor=4.0),
    "llama3": Rope(theta=5e5, scaling="llama3", factor=8.0, original=2048),
    "yarn": Rope(scaling="yarn", factor=4.0, original=2048),
}  # fmt: skip


def words() -> dict[str, Tensor]:
    """Every kind of table and constant, as the integers that parties compute with."""
    found = {
        f"{s.name} {s.width}": s.tables
        for room in (splines, gates, delta)
        for s in vars(room).values()
        if isinstance(s, Spline)
    }
    found |= {f"softcap {cap}": gates.softcap_table(cap).tables for cap in (4.0, 30.0, 50.0, 128.0)}
    found |= {f"reciprocal {n}": roots._reciprocal_spline(n).tables for n in range(2, 14)}
    found |= {f"rsqrt {s}": roots._rsqrt_spline(s).tables for s in (0.5, 0.75, 1.0)}
    for temperature in (0.01, 0.7, 1.0, 100.0):
        found |= {
            f"noise {i} {temperature}": torch.round(temperature * t * 2**14).long()
            for i, t in enumerate(sampling.tables())
        }
    return found | positions()


def positions() -> dict[str, Tensor]:
    """Rotary angles, and the buckets of distances."""
    host, places, found = torch.device("cpu"), torch.arange(8192), dict[str, Tensor]()
    for name, rope in ROPES.items():
        for size in (64, 128):
            turning = frequencies(rope, size, 8192)
            found[f"angles {name} {size}"] = encode(rotary_angles(places, turning, host), ROTARY)
    far = torch.arange(-8192, 8192)
    found |= {f"buckets {both}": buckets(far, 32, 128, both) for both in (True, False)}
    found |= {
        f"rounded {span}": rounded(far, Disentangled(span=span, furthest=furthest))
        for span, furthest in ((512, 512), (128, 4096))
    }
    return found


def digest(of: dict[str, Tensor]) -> str:
    """One of all of them."""
    found = hashlib.sha256()
    for name in sorted(of):
        found.update(name.encode() + of[name].to(torch.int64).contiguous().numpy().astype("<i8").tobytes())
    return found.hexdigest()


def canary(path: Path, checkpoint: str = "", sharing: str = "") -> str:
    """What honest parties would send in a report's canary, by this machine; of a model, or of one whose weights are
    open and have no sharing."""
    report, shared = reports.read(path), None
    if checkpoint and report.public is not None:
        plan = report.public
        shared = in_the_open(plan.config, plan.card, plan.sharing, PlainModel(checkpoint).params)
    elif checkpoint:
        shared = Shared(kept(Path(sharing)), PlainModel(checkpoint).params)
    pledges = [canaries.pledge_of(each.payload) for each in report.pledges]
    disclosures = [canaries.disclosure_of(each.payload) for each in report.disclosures]
    found = replayed(shared, report.opened, report.scripts, secrets_of(pledges, disclosures))
    return hashlib.sha256(msgspec.json.encode(found, order="deterministic")).hexdigest()


if __name__ == "__main__":
    print(digest(words()) if sys.argv[1] == "tables" else canary(Path(sys.argv[2]), *sys.argv[3:]))
