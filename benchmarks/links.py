"""What TLS costs on a link: throughput and round-trip time, plain and guarded, between two processes on the loopback.

    python benchmarks/links.py [--json FILE] [--quick]

Each number is the median of several runs, plain and TLS in turn. Throughput is one way, in frames of 1 MiB and of
64 KiB; the round trip is a frame of 64 bytes there and back; "first link" is all that a new process's first link takes,
two sockets, certificates and the pair secret. Processor time is that of both processes.
"""

from __future__ import annotations

import argparse
import json
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from puma.config import Cluster, Party
from puma.crypto import identity
from puma.net import tcp
from puma.net.guard import PLAIN, Guard
from puma.net.handshake import NO_COOKIE, Identity
from puma.net.stream import StreamLink
from puma.net.tls import Tls

SIZES = {"1 MiB frames": 1 << 20, "64 KiB frames": 64 << 10}
PING = 64
SECONDS_LIMIT = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--echo", nargs=3, metavar=("FOLDER", "KIND", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.echo:
        folder, kind, port = options.echo
        return echo(Path(folder), kind, int(port))
    runs, total, pings = (3, 64 << 20, 500) if options.quick else (7, 512 << 20, 5000)
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(3):
            identity.create(f"p{rank}", folder)
        found = {kind: [] for kind in ("plain", "tls")}
        for _ in range(runs):
            for kind, taken in found.items():
                taken.append(measure(Path(folder), kind, total, pings))
    report: dict[str, Any] = {"openssl": ssl.OPENSSL_VERSION}
    for kind, taken in found.items():
        report[kind] = {key: statistics.median(run[key] for run in taken) for key in taken[0]}
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def guard(folder: Path, kind: str, rank: int) -> Guard:
    """What stands around the sockets of P1 or P2."""
    if kind == "plain":
        return PLAIN
    keys = [identity.load(folder / f"p{r}.key") for r in range(3)]
    parties = tuple(Party(r, f"127.0.0.1:{7700 + r}", keys[r].fingerprint) for r in range(3))
    return Tls(keys[rank].certificate, keys[rank].key, Cluster(parties))


def me(rank: int) -> Identity:
    return Identity("party", rank, bytes(16), bytes(32), NO_COOKIE)


def measure(folder: Path, kind: str, total: int, pings: int) -> dict[str, float]:
    """One run: P1 here, P2 in a process of its own that does as it is told."""
    with tcp.listen(guard=guard(folder, kind, 1)) as port:
        port.welcome(me(1), [("party", 2)], timeout=SECONDS_LIMIT)
        words = [sys.executable, __file__, "--echo", str(folder), kind, str(port.address[1])]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other, port.accept(60).link as link:
            found = {f"MB/s, {what}": throughput(link, size, total) for what, size in SIZES.items()}
            found["round trip, us"] = round_trip(link, pings)
            before = cpu()
            throughput(link, SIZES["1 MiB frames"], total)
            spent = cpu() - before
            link.send_control(b"")
            child = json.loads(other.communicate(timeout=60)[0])
    found["cpu ms/GB"] = 1e12 * (spent + child["cpu"]) / total
    found["first link, ms"] = child["handshake"]
    return found


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def throughput(link: StreamLink, size: int, total: int) -> float:
    """Megabytes a second, until the other side has said that it has all."""
    frame, count = bytearray(size), total // size
    link.send_control(f"take {size} {count}".encode())
    link.recv_control()
    start = time.perf_counter()
    for _ in range(count):
        link.send(frame)
    link.recv_control()
    return count * size / (time.perf_counter() - start) / 1e6


def round_trip(link: StreamLink, count: int) -> float:
    """Microseconds, the median."""
    link.send_control(f"echo {PING} {count}".encode())
    link.recv_control()
    ball, times = bytes(PING), []
    for _ in range(count):
        start = time.perf_counter()
        link.send(ball)
        link.recv(PING)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def echo(folder: Path, kind: str, port: int) -> None:
    """P2: takes or returns what comes, and says at the end what the last transfer cost it."""
    guarded = guard(folder, kind, 2)
    start = time.perf_counter()
    link = tcp.dial("127.0.0.1", port, me(2), ("party", 1), guard=guarded, timeout=SECONDS_LIMIT).link
    handshake, spent = 1e3 * (time.perf_counter() - start), 0.0
    with link:
        while words := link.recv_control().decode():
            what, size, count = words.split()
            before = cpu()
            link.send_control(b"ready")
            for _ in range(int(count)):
                got = link.recv(int(size))
                if what == "echo":
                    link.send(got)
            if what == "take":
                link.send_control(b"done")
            spent = cpu() - before
    print(json.dumps({"cpu": spent, "handshake": handshake}))


def show(report: dict[str, Any]) -> None:
    print(report["openssl"])
    print(f"{'':24}{'plain':>12}{'TLS 1.3':>12}")
    for key, value in report["plain"].items():
        print(f"{key:24}{value:12.1f}{report['tls'][key]:12.1f}")


if __name__ == "__main__":
    main()
