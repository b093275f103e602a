"""`--receipt` keeps what the parties signed, and `puma receipt` shows and checks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from puma import config
from puma.client.evidence import verify as receipts
from puma.client.evidence.receipt import Receipt
from tests.cli.conftest import Run
from tests.client.evidence import made
from tests.keyring import Keyring

STATED = {
    "format", "version", "protocol", "rank", "cluster", "session", "number", "kind", "request", "said", "model",
    "links", "began", "ended",
}  # fmt: skip


@pytest.mark.processes
@pytest.mark.usefixtures("lent")
def test_commands_keep_receipts_that_hold(puma: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "kept"
    for words in (
        ("generate", checkpoints["llama"], "the cat sat", "--tokens", 2),
        ("encode", checkpoints["bert"], "the cat"),
        ("classify", checkpoints["classifier"], "the cat"),
    ):
        assert puma(*words, "--receipt", file, "--json").code == 0
        last = receipts.read(file)[-1]
        assert last.local and last.statements[0].kind == ("generate" if words[0] == "generate" else "encode")
    found = puma("receipt", "verify", file, "--json").json
    assert found["checked"] and not found["keys_known"] and found["local"]
    assert set(found["receipts"][-1]["statements"][0]) == STATED
    assert found["receipts"][-1]["statements"][1]["links"][1]["sent"]["frames"] > 0
    assert puma("generate", checkpoints["llama"], "a", "--receipt", tmp_path / "no" / "kept").code == 2


def test_a_receipt_is_shown_and_checked_for_people(puma: Run, tmp_path: Path) -> None:
    file = tmp_path / "kept"
    receipts.write(file, made.receipt())
    shown = puma("receipt", "show", file)
    assert shown.code == 0 and "This was not checked" in shown.out and made.SIGNERS[2].fingerprint in shown.out
    assert "tiny, sharing" in shown.out and "steps with others" in shown.out
    checked = puma("receipt", "verify", file)
    assert checked.code == 0 and "1 receipt holds." in checked.out and "compare the fingerprints" in checked.out
    content = json.loads(file.read_text())
    content["receipts"][0].reverse()
    file.write_text(json.dumps(content))
    wrong = puma("receipt", "verify", file)
    assert wrong.code == 4 and "P2's statement stands in P0's place" in wrong.err
    assert puma("receipt", "show", tmp_path / "nowhere").code == 6


def test_the_cluster_file_says_whose_keys_count(puma: Run, tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "keys")
    config.create(tmp_path / "cluster.toml", keyring.cluster)
    receipts.write(tmp_path / "kept", Receipt(made.receipt().signed, local=True))
    refused = puma("receipt", "verify", tmp_path / "kept", "--cluster", tmp_path / "cluster.toml", "--json")
    assert refused.code == 4 and "P0's statement is not P0's" in refused.out
    assert "proves nothing to others" in puma("receipt", "verify", tmp_path / "kept").out
