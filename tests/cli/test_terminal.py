"""What others wrote, and this program prints, commands no terminal: models, parties, tokenizers, templates."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from puma.cli import app, ui
from puma.cli.texts import given_texts
from puma.errors import PumaError, StoreError, UsageError
from puma.party.events import Events

CLEAR, TITLE, BELL = "\x1b[2J\x1b[H", "\x1b]0;gone\x07", "\x07"
C1, TURNED, HALF = "\x9b31m", "\u202egnp.exe\u2066", "\ud800"
EVIL = [CLEAR, TITLE, BELL, C1, TURNED, HALF, "a\rb", "a\x08b", "\x00", "\x7f", "a\u2028b", "\u200f"]
GOOD = [
    "a word\n",
    "\tindented",
    "žluťoučký",
    "日本語",
    "👩\u200d🔬",
    "mi\u200cnevis",
    "שלום",
    "½ ≤ 1",
    "soft\u00adhyphen",
]


def obeyed(text: str) -> bool:
    """Whether a terminal would do something for it but show it."""
    return any((unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t") or c in ui._DIRECTIONS for c in text)


@pytest.mark.parametrize("text", EVIL, ids=ascii)
def test_escapes_are_shown_and_not_obeyed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert obeyed(text)
    ui.say(text)
    ui.note(text)
    ui.table([["name", "size"], [text, "1"]])
    ui.Typewriter().show(text, last=True)
    ui.failed(StoreError(f"no model {text}", text), False)
    ui.answer({"text": text})
    found = capsys.readouterr()
    assert not obeyed(found.out + found.err)
    assert ascii(text)[1:-1] in found.out and found.err.count("\n") == 3


@pytest.mark.parametrize("text", EVIL + GOOD, ids=ascii)
def test_json_still_says_what_it_was(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    ui.answer({"text": text})
    out = capsys.readouterr().out
    assert json.loads(out) == {"text": text} and not obeyed(out.rstrip("\n"))


@pytest.mark.parametrize("text", GOOD, ids=ascii)
def test_what_people_write_is_left_alone(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    ui.say(text, end="")
    assert capsys.readouterr().out == text


def test_a_message_of_others_writes_no_hint_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    ui.failed(PumaError("no\nhint: run curl example.org | sh", "ask\nerror: twice"), False)
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error", "hint"]


def test_stacks_and_events_pass_there_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(words: object) -> int:
        raise StoreError(f"no model {CLEAR}{TURNED}")

    monkeypatch.setattr(app, "app", fails)
    assert app.run(["models", "list", "--debug"]) == StoreError.exit_code
    log = io.StringIO()
    Events("P1", log).say("session ends", message=f"{CLEAR}{C1}{TURNED}")
    found = capsys.readouterr()
    assert not obeyed(found.err + log.getvalue()) and "Traceback" in found.err
    assert json.loads(log.getvalue())["message"] == f"{CLEAR}{C1}{TURNED}"


def test_nothing_is_printed_elsewhere() -> None:
    """One place prints; a command that did it by itself would leave this out."""
    places = {
        path.name
        for path in Path(ui.__file__).parent.rglob("*.py")
        if "print(" in path.read_text() or "stdout.write" in path.read_text() or "stderr.write" in path.read_text()
    }
    assert places == {"ui.py"}


def test_columns_of_wide_letters_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    ui.table([["name", "size"], ["日本", "1"], ["ab\u0301c", "2"]])
    assert capsys.readouterr().out.splitlines() == ["name  size", "日本     1", "ab\u0301c      2"]
    assert ui.padded("日本", 6) == "日本  " and ui.padded("long enough", 3) == "long enough"


def run(words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The program as a shell starts it, with what stands behind it on its line."""
    line = f"exec {shlex.quote(sys.executable)} -m puma.cli.app {words}"
    return subprocess.run(["sh", "-c", line], capture_output=True, env=os.environ | environment, timeout=60)


def test_streams_that_are_closed_full_or_of_few_letters() -> None:
    for closed in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
        found = run(f"completion bash {closed}")
        assert found.returncode == 0 and b"Traceback" not in found.stderr, closed
        assert run(f"keys show nowhere.crt {closed}").returncode == 5, closed
    if os.path.exists("/dev/full"):
        found = run("completion bash > /dev/full")
        assert found.returncode == 6 and b"no room left" in found.stderr and b"Traceback" not in found.stderr
    found = run("keys show größe.crt --json", PYTHONIOENCODING="ascii")
    assert "größe.crt" in json.loads(found.stdout)["error"]["message"]
    assert run("completion größe", PYTHONIOENCODING="ascii").returncode == 2


def test_standard_input_that_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
    with pytest.raises(UsageError, match="is no text"):
        given_texts([], None)


def test_lines_of_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an editor on another system ends and begins them; Python leaves them so."""
    sent = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa dog\r\n\r\nthe hat\rso\n"), encoding="utf-8", newline="\n")
    monkeypatch.setattr(sys, "stdin", sent)
    assert given_texts([], None) == ["a dog", "the hat", "so"]


def test_lines_of_a_file_of_texts(tmp_path: Path) -> None:
    """What an editor writes before them is none of the first; what Unicode calls a line end is a sign like others."""
    file = tmp_path / "texts"
    file.write_bytes("\ufeffso\u2028so\r\n\r\nb\x0bc\n".encode())
    assert given_texts([], file) == ["so\u2028so", "b\x0bc"]


def test_what_takes_long_is_said_once_where_no_terminal_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ui, "PATIENCE", 0.2)
    said, until = "", time.monotonic() + 20
    with ui.progress(False) as progress:
        while "compiling" not in said and time.monotonic() < until:
            progress("compiling", 0, 1)
            time.sleep(0.01)
            said += capsys.readouterr().err
        time.sleep(0.25)
        progress("sharing", 0, 1)
    with ui.progress(True) as progress:
        progress("compiling", 0, 1)
        time.sleep(0.25)
    lines = (said + capsys.readouterr().err).splitlines()
    assert lines.count("compiling ...") == 1 and "sharing ..." not in lines
