"""Three daemons that know each other, their owner and their client by a company's CA and not by fingerprints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from puma.cli import app
from puma.client.connect import open_session
from puma.errors import HandshakeError
from puma.reference.plain_model import PlainModel
from tests.keyring import Company, Payroll
from tests.live import Live
from tests.party.steps.test_channel import until

pytestmark = [pytest.mark.slow, pytest.mark.processes]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("company")
    with Live(folder, keyring=Payroll(folder)) as made:
        yield made


def test_a_whole_life_under_a_ca(live: Live, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    there = ["--cluster", str(live.file), "--json", "--as"]
    alice, olga = [*there, str(live.key("alice"))], [*there, str(live.key("olga"))]

    def puma(*words: str, code: int = 0) -> Any:
        assert app.run(words) == code, capsys.readouterr()
        return json.loads(capsys.readouterr().out)

    for kind, name in (("llama", "writer"), ("classifier", "judge")):
        puma("share", str(checkpoints[kind]), "--name", name, "--state", str(live.folder / "state"), *olga)
    clear = PlainModel(checkpoints["llama"])
    found = puma("generate", "the cat", "--tokens", "2", "--model", "writer", *alice)
    assert found["token_ids"] == clear.greedy(clear.prompt_ids("the cat", 2), 2)
    assert len(puma("encode", "the cat", "--model", "judge", *alice)["results"]) == 1
    assert puma("models", "delete", "judge", *olga) == {"deleted": "judge"}
    assert [m["name"] for m in puma("models", "list", *alice)["models"]] == ["writer"]
    live.settled()


def test_under_a_ca_the_cluster_file_still_says_who_may_what(live: Live, tmp_path: Path) -> None:
    """Neither a colleague whom it does not name, nor the right name from another CA, nor the right person elsewhere:
    whom the client's own copy names is told before anybody is dialed, and by the parties if that copy names nobody."""
    other, silent = Company(tmp_path).issue("alice"), replace(live.cluster, owners={}, clients={})
    for cluster, key, role, why in (
        (live.cluster, live.key("mallory"), "client", "nobody in the cluster file has the certificate"),
        (live.cluster, other.key, "client", "does not know the dialer's certificate"),
        (live.cluster, live.key("alice"), "owner", "role mismatch"),
        (live.cluster, live.key("p1"), "owner", "role mismatch"),
        (silent, live.key("olga"), "client", "role mismatch .olga is an owner"),
    ):
        with pytest.raises(HandshakeError, match=why):
            open_session(cluster, key, role)  # type: ignore[arg-type]
    until(lambda: len(refusals(live)) >= 3)  # a party hangs up first, and writes the line then
    for why in ("nobody in the cluster file", "does not know the dialer's", "role mismatch (olga is an owner"):
        assert [why in reason for reason in refusals(live)].count(True) == 1, refusals(live)
    live.settled()


def refusals(live: Live) -> list[str]:
    """Why P0 let nobody in, by its audit log."""
    return [event["reason"] for event in live.audited(0) if event["outcome"] == "refused"]
