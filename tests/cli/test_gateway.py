"""`puma gateway` as a program: it says where it is, answers, warns, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import pytest

from puma.cli.commands.ask import gateway as command
from puma.gateway.service import Gateway
from puma.gateway.settings import Settings, short_name
from tests.cli.conftest import Run
from tests.watching import started
from tests.watching.started import gone

SECONDS = 40.0


@pytest.mark.processes
def test_from_start_to_end(checkpoints: dict[str, Path]) -> None:
    words = ["gateway", str(checkpoints["llama"]), "--port", "0", "--json"]
    command = [sys.executable, "-m", "puma.cli.app", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None and program.stderr is not None
        said = json.loads(program.stdout.readline())
        assert said["model"] == "llama"
        with urlopen(f"{said['url']}/v1/models", timeout=10) as answer:
            assert json.load(answer)["data"][0]["id"] == "llama"
        parties = started.parties(program.pid)
        assert len(parties) == 3
        program.send_signal(signal.SIGINT)
        assert program.wait(SECONDS) == 130 and gone(parties, SECONDS)
        assert program.stdout.read().strip().endswith('"hint": ""}}')


@pytest.mark.parametrize(("host", "fixed"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_what_is_said(host: str, fixed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    class Bound:
        def getsockname(self) -> tuple[str, int]:
            return host, 80

    made = Gateway(SimpleNamespace(name="tiny", files={}, wording=None), lambda: None, Settings("tiny"))  # type: ignore[arg-type,return-value]
    command._greet(made, Bound(), host, True, fixed, False)
    made.worker.close()
    said = capsys.readouterr().out
    assert f"http://{host}:80/v1" in said and "sees prompts and answers in the clear" in said
    assert ("WARNING" in said) is (host == "0.0.0.0")
    assert ("learn how many tokens it has" in said) is not fixed


def test_drafts_tell_what_a_fixed_length_hides(puma: Run, nobody: None) -> None:
    assert "--fixed-length hides" in puma("gateway", "--draft", "lookup", "--fixed-length").err


def test_names(tmp_path: Path) -> None:
    assert short_name(None) == "stories" and short_name(tmp_path) == tmp_path.name
    assert short_name("meta-llama/Llama-2-7b") == "meta-llama/Llama-2-7b"


def test_without_the_extra(puma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "puma.gateway.server", None)
    monkeypatch.delattr("puma.gateway.server", raising=False)  # of an earlier test
    ran = puma("gateway")
    assert ran.code == 2 and "pip install -c constraints.txt '.[gateway]'" in ran.err
