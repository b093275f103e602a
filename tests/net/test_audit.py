"""The audit log: one line an event, whatever a peer says, and no way to fill the disk or to stop a link by it."""

from __future__ import annotations

import json
import os
import stat
import threading
from datetime import datetime

import pytest

from puma.errors import ConfigError
from puma.net import audit
from puma.net.audit import Audit, Visit

VISIT = Visit("in", "127.0.0.1:5", "client", 0, "alice", "puma1:x")


@pytest.fixture
def log(tmp_path):
    made = Audit(tmp_path / "audit.log")
    yield made, lambda: [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    made.close()


def test_a_line_says_who_when_and_why(log, tmp_path):
    made, lines = log
    made.link(VISIT)
    made.link(Visit("out", "[::1]:7"), "bad\nline \x1b[2J \u2028 \u202e" + "x" * 1000)
    accepted, refused = lines()
    assert accepted == {
        "time": accepted["time"], "event": "link", "outcome": "accepted", "direction": "in",
        "address": "127.0.0.1:5", "role": "client", "rank": 0, "name": "alice", "fingerprint": "puma1:x", "reason": "",
    }  # fmt: skip
    assert datetime.fromisoformat(accepted["time"]).tzinfo is not None
    assert refused["outcome"] == "refused" and refused["rank"] is None
    assert refused["reason"].startswith("bad?line ?[2J ? ?x") and len(refused["reason"]) == audit.MAX_REASON
    assert stat.S_IMODE((tmp_path / "audit.log").stat().st_mode) == 0o600


def test_a_second_process_appends(log, tmp_path):
    made, lines = log
    made.link(VISIT)
    other = Audit(tmp_path / "audit.log")
    other.link(VISIT)
    other.close()
    other.close()
    made.link(VISIT)
    assert len(lines()) == 3


def test_lines_of_threads_do_not_mix(log):
    made, lines = log
    threads = [threading.Thread(target=lambda: [made.link(VISIT) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines()) == 800


def test_a_flood_of_refusals_is_counted_not_written(log, monkeypatch):
    made, lines = log
    now = [100.0]
    monkeypatch.setattr(audit, "monotonic", lambda: now[0])
    for _ in range(500):
        made.link(VISIT, "no")
    made.link(VISIT)
    now[0] = 101.5
    made.link(VISIT, "no")
    found = lines()
    assert len(found) == audit.REFUSALS_A_SECOND + 2
    assert found[-2]["left_out"] == 500 - audit.REFUSALS_A_SECOND and "left_out" not in found[-1]


def test_a_log_that_cannot_be_written_stops_nobody(log, monkeypatch):
    made, lines = log

    def full(file, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        made.link(VISIT)
    made.link(VISIT)
    assert [line["left_out"] for line in lines()] == [1]
    made.close()
    made.link(VISIT)  # nowhere to go, and no error


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot write the audit log"):
        Audit(tmp_path / "no" / "audit.log")
