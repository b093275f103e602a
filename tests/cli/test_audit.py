"""`puma audit`: reports are checked, what belongs together is asked for together, and a canary goes all the way."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from puma import config
from puma.audit import report as reports
from puma.audit.report import Report
from puma.cli.app import run
from puma.config import Cluster, Party
from puma.crypto.signing import Signer, fingerprint_of
from puma.local import cluster as local
from tests.audit.trio import CHANGES, canary, swaps
from tests.cli.conftest import Run
from tests.live import Live
from tests.models import tiny
from tests.threads import Threads

pytestmark = pytest.mark.masks_again  # an auditor shares the model again, in this process


def kept(report: Report, folder: Path) -> Path:
    """The report, as if it were of the cluster that is written beside it."""
    keys = [fingerprint_of(pledge.key) for pledge in report.pledges]
    cluster = Cluster(tuple(Party(rank, f"127.0.0.1:{7700 + rank}", key) for rank, key in enumerate(keys)))
    config.create(folder / "cluster.toml", cluster)
    report = msgspec.structs.replace(report, cluster=cluster.digest.hex())
    reports.write(reports.sign(report, Signer.fresh()), folder / "report")
    return folder / "report"


def test_a_report_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = kept(canary(2, swaps(3, CHANGES["zeros"])), tmp_path)
    words = ["audit", "verify", str(file), "--cluster", str(tmp_path / "cluster.toml")]
    assert run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accused"] == ["P2"] and not found["again"] and "P2: it sent P1 something else" in found["findings"][0]
    assert run(words) == 0
    assert "is the auditor's word" in capsys.readouterr().out
    assert run([*words, "--model", "x"]) == 2
    capsys.readouterr()


def test_of_another_cluster_nothing_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = kept(canary(), tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    kept(canary(), other)
    assert run(["audit", "verify", str(file), "--cluster", str(other / "cluster.toml")]) == 4
    assert "the report is of another cluster" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cluster", "c.toml"], "MODEL, --as and, of hidden weights, --owner"),
        (
            ["m", "--cluster", "c.toml", "--as", "a.key", "--owner", "o.key"],
            "MODEL, --as and, of hidden weights, --owner",
        ),
        (["--as", "a.key"], "--as goes with a cluster"),
        (["--tokens", "0"], "a canary has at least one token"),
        (["--every", "0"], "a canary has at least one token"),
        (["--plan", "auto"], "an audited session does not ask how the network is"),
    ],
)
def test_what_belongs_together(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", *words]) == 2
    assert says in capsys.readouterr().err


def test_no_report_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report").touch()
    assert run(["audit", "--report", str(tmp_path / "report")]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize("weights", [[], ["--open-weights"]], ids=["hidden", "open"])
def test_three_parties_here_are_audited(
    weights: list[str], puma: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local, "Trio", lambda _=None, store=None, **kind: Threads(store, **kind))
    model = tiny.llama(tmp_path / "llama", num_hidden_layers=1)
    asked = ("--prompt", 3, "--tokens", 2, "--report", tmp_path / "report", "--json")
    found = puma("audit", model, *asked, *weights).json
    assert found["accused"] == [] and found["canaries"] == 1 and found["frames"] > 20
    assert reports.read(tmp_path / "report").findings == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_daemons_are_audited(tmp_path: Path) -> None:
    """What docs/audits.md shows, by the commands of owner and client, beside requests that look alike."""
    model = tiny.llama(tmp_path / "llama", num_hidden_layers=1)
    with Live(tmp_path) as live:
        file, sharing, report = str(live.file), str(tmp_path / "model.sharing"), str(tmp_path / "report")
        done = live.run("share", str(model), "--as", str(live.key("olga")), "--cluster", file, "--keep", sharing)
        assert done.returncode == 0, done.stderr
        asked = ["generate", "the cat", "--tokens", "2", "--cluster", file, "--as", str(live.key("alice")), "--audited"]
        assert live.run(*asked).returncode == 0
        words = [
            "audit",
            str(model),
            "--cluster",
            file,
            "--as",
            str(live.key("alice")),
            "--owner",
            str(live.key("olga")),
        ]
        done = live.run(*words, "--sharing", sharing, "--prompt", "4", "--tokens", "2", "--report", report)
        assert done.returncode == 0 and "did what they should have" in done.stdout, done.stderr
        done = live.run("audit", "verify", report, "--cluster", file, "--model", str(model), "--sharing", sharing)
        assert done.returncode == 0 and "did what they should have" in done.stdout, done.stderr
        refused = live.run(*[*words[:-1], str(live.key("alice"))], "--sharing", sharing)
        assert refused.returncode == 7 and "the model's owner has not agreed" in refused.stderr
        base = tiny.llama(tmp_path / "open", num_hidden_layers=1)
        done = live.run("share", str(base), "--as", str(live.key("olga")), "--cluster", file, "--open-weights")
        assert done.returncode == 0, done.stderr
        alone = ["audit", str(base), "--cluster", file, "--as", str(live.key("alice")), "--prompt", "4"]
        done = live.run(*alone, "--plan", "quick", "--report", f"{report}.open")
        assert done.returncode == 0 and "did what they should have" in done.stdout, done.stderr
        done = live.run("audit", "verify", f"{report}.open", "--cluster", file, "--model", str(base))
        assert done.returncode == 0 and "is the auditor's word" not in done.stdout, done.stderr
