"""What is hashed is bit by bit the same whatever instructions a processor has: else honest parties would be accused."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from puma.audit import report as reports
from puma.audit.auditing import Auditor
from puma.audit.here import shared_by
from puma.audit.shared import write
from puma.client.session import Session
from puma.crypto.signing import Signer
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from tests.audit import machines
from tests.audit.trio import canary
from tests.models import tiny
from tests.threads import Threads

ROOT = Path(__file__).parents[2]
# As on a machine without AVX-512, which is hidden from torch, numba and OpenSSL; and for torch one without AVX2 either.
# The name of an older processor alone would leave numba the instructions of this one.
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2", "NUMBA_CPU_NAME": "znver3", "OPENSSL_ia32cap": ":~0xd0230000",
    "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2,+popcnt,-avx512f",
}  # fmt: skip
BARE = {"ATEN_CPU_CAPABILITY": "default"}


def elsewhere(environment: dict[str, str], *words: str) -> str:
    """What another process prints, on such a machine."""
    line = [sys.executable, "-m", "tests.audit.machines", *words]
    found = subprocess.run(line, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True)
    return found.stdout.strip()


@pytest.mark.parametrize("environment", [AVX2, pytest.param(BARE, marks=pytest.mark.slow)], ids=["avx2", "bare"])
def test_tables_and_constants_are_the_same_on_other_machines(environment: dict[str, str]) -> None:
    assert elsewhere(environment, "tables") == machines.digest(machines.words())


def drawn(session: Session) -> None:
    """By all functions that are quick, and with noise."""
    session.variants = "quick"
    for _ in session.continued([[2, 5, 7]], 2, temperature=0.7):
        pass


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.masks_again  # an auditor shares the model again, in this process
@pytest.mark.parametrize("weights", ["hidden", "open"])
def test_a_models_canary_is_the_same_on_other_machines(weights: Any, tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "llama", num_hidden_layers=1)
    with closing(Threads()) as trio:
        cluster = LocalCluster(PlainModel(folder), trio=trio, weights=weights)  # type: ignore[arg-type]
        shared = shared_by(cluster)
        report = Auditor(Signer.fresh(), shared=shared).audit(trio.session, None, drawn)
    assert report.findings == []
    reports.write(report, tmp_path / "report")
    words = [str(tmp_path / "report"), str(folder)]
    if weights == "hidden":
        write(tmp_path / "sharing", shared.plan)
        words.append(str(tmp_path / "sharing"))
    assert elsewhere(AVX2, "canary", *words) == machines.canary(tmp_path / "report", *words[1:])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_canary_is_the_same_on_other_machines(tmp_path: Path) -> None:
    """The kernels for another processor are compiled first, which takes a while."""
    reports.write(canary(), tmp_path / "report")
    here = machines.canary(tmp_path / "report")
    assert elsewhere(AVX2, "canary", str(tmp_path / "report")) == here
