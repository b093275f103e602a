"""The gateway in front of three daemons, and the owner's policy about logits on its way through them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from puma.config import Policy
from puma.errors import PolicyError
from puma.reference.plain_model import PlainModel
from tests.live import Live

pytestmark = pytest.mark.processes
PROMPT = "the cat"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Live]:
    with Live(tmp_path_factory.mktemp("cluster"), Policy(reveal_logits=True)) as found:
        found.share(checkpoints["llama"], "open", reveal_logits=True)
        found.share(checkpoints["llama"], "shut")
        yield found


@pytest.fixture(scope="module")
def wanted(checkpoints: dict[str, Path]) -> list[int]:
    clear = PlainModel(checkpoints["llama"])
    return clear.greedy(clear.prompt_ids(PROMPT, 3), 3)


def test_clients_see_logits_where_owner_and_cluster_allow_it(live: Live, wanted: list[int]) -> None:
    with live.connect("open") as cluster:
        assert cluster.generate(PROMPT, 3, temperature=1.0, top_k=1, seed=1).token_ids == wanted
    with live.connect("shut") as cluster:
        with pytest.raises(PolicyError, match="top_k needs logits"):
            cluster.generate(PROMPT, 3, temperature=1.0, top_k=1)
        assert cluster.generate(PROMPT, 3).token_ids == wanted


def test_a_party_refuses_what_a_client_does_not_check(live: Live) -> None:
    with live.connect("shut") as cluster, pytest.raises(PolicyError, match="does not let clients see logits"):
        cluster.session.reveals = True
        cluster.generate(PROMPT, 3, temperature=1.0, top_k=1)


def test_a_gateway_asks_the_cluster(live: Live, wanted: list[int], checkpoints: dict[str, Path]) -> None:
    words = ["gateway", "--cluster", str(live.file), "--as", str(live.key("alice")), "--model", "shut"]
    command = [sys.executable, "-m", "puma.cli.app", *words, "--port", "0", "--json"]
    asked = json.dumps({"model": "shut", "prompt": PROMPT, "max_tokens": 3, "temperature": 0}).encode()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        url = json.loads(program.stdout.readline())["url"]
        request = Request(f"{url}/v1/completions", asked, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            text = json.load(answer)["choices"][0]["text"]
        program.send_signal(signal.SIGINT)
        assert program.wait(15.0) == 130
    clear = PlainModel(checkpoints["llama"])
    before = clear.prompt_ids(PROMPT, 3)
    assert clear.decode(before) + text == clear.decode([*before, *wanted])
