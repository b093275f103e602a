"""Three daemons in network namespaces: a machine that vanishes without a word, and a slow network. Needs root."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from puma import config
from puma.config import Cluster, Party
from tests.keyring import Keyring
from tests.party.namespaces import ADDRESSES, NAMES, inside, ip

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def events(folder: Path, rank: int) -> str:
    return (folder / f"p{rank}.log").read_text()


def until(what: str, folder: Path, rank: int, seconds: float) -> float:
    """Seconds until a party has said this."""
    began = time.monotonic()
    while what not in events(folder, rank):
        assert time.monotonic() - began < seconds, (what, [events(folder, r) for r in range(3)])
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.usefixtures("namespaces")
def test_a_machine_that_vanishes_is_noticed(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    keyring = Keyring(tmp_path)
    parties = tuple(
        Party(rank, f"{ADDRESSES[f'p{rank}']}:7700", keyring.keys[f"p{rank}"].fingerprint) for rank in range(3)
    )
    cluster: Cluster = msgspec.structs.replace(keyring.cluster, parties=parties)
    file = tmp_path / "cluster.toml"
    config.create(file, cluster)
    there = ["--cluster", str(file), "--as"]
    processes: list[subprocess.Popen[str]] = []
    try:
        for rank in range(3):
            with (tmp_path / f"p{rank}.log").open("w") as log:
                words = ["party", "--store", str(tmp_path / f"s{rank}"), *there, str(keyring.keys[f"p{rank}"].key)]
                processes.append(subprocess.Popen(inside(f"p{rank}", *words), stderr=log, stdout=log, text=True))
        for rank in range(3):
            for other in {0, 1, 2} - {rank}:
                until(f'"peer reachable", "peer": "P{other}"', tmp_path, rank, 60)
        # 20 Mbit/s is what a request has to go through, so that it lasts long enough to be interrupted.
        for name in NAMES:
            ip(
                "netns",
                "exec",
                f"puma-{name}",
                "tc",
                *["qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "20mbit", "burst", "64k", "latency", "400ms"],
            )
        share = inside("cl", "share", str(checkpoints["llama"]), "--name", "m", "--state", str(tmp_path / "st"), *there)
        subprocess.run([*share, str(keyring.keys["olga"].key)], check=True, timeout=60)
        ask = inside("cl", "generate", "the cat", "--tokens", "28", *there, str(keyring.keys["alice"].key))
        assert subprocess.run(ask, check=False, timeout=60).returncode == 0
        asking = subprocess.Popen(ask, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        until('"role": "client", "name": "alice"', tmp_path, 0, 30)
        time.sleep(1.0)
        ip("-n", "puma-net", "link", "set", "vp1", "down")  # no FIN, no RST: the wire is cut
        noticed = max(until('"peer lost", "peer": "P1"', tmp_path, rank, 14) for rank in (0, 2))
        began = time.monotonic()
        _, said = asking.communicate(timeout=20)
        assert asking.returncode == 4 and "P1" in said, said
        assert noticed + time.monotonic() - began < 16
        ip("-n", "puma-net", "link", "set", "vp1", "up")
        time.sleep(16)
        assert subprocess.run(ask, check=False, timeout=60).returncode == 0, "the next session works"
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(40)
