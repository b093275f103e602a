"""Every command line that the documents show is one that the program understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from puma.cli.app import COMMANDS, app

ROOT = Path(__file__).parents[2]
LINE = re.compile(rf"\bpuma ((?:{'|'.join(COMMANDS)})\b[^`\n]*)")
PLACEHOLDER = re.compile(r"\b(MODEL|PROMPT|TEXT|N|T|NET|SHELL)\b")
SHOWN = sorted(
    {
        line.strip()
        for name in ("README.md", "Makefile", "docs/cli.md", "docs/tutorial.md")
        for line in LINE.findall((ROOT / name).read_text())
        if not PLACEHOLDER.search(line)
    }
)


def test_some_were_found() -> None:
    assert {line.split()[0] for line in SHOWN} >= {"generate", "bench", "cost", "demo"}


@pytest.mark.parametrize("line", SHOWN)
def test_command_lines(line: str) -> None:
    app.parse_args(shlex.split(line))


def test_every_command_has_a_chapter() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    chapters = re.findall(r"^## puma ([a-z]+(?: [a-z]+)?)", text, re.MULTILINE)
    assert chapters == list(COMMANDS)


def test_every_option_is_described() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for name in COMMANDS:
        found = app
        for word in name.split():
            found = found[word]
        for argument in found.assemble_argument_collection():
            for option in argument.names:
                known = f"{option} " in text or f"{option}`" in text or option == "--error"
                assert known or not option.startswith("--"), f"docs/cli.md does not describe {name} {option}"


def taking(option: str) -> set[str]:
    found = set[str]()
    for name in COMMANDS:
        command = app
        for word in name.split():
            command = command[word]
        if any(option in argument.names for argument in command.assemble_argument_collection()):
            found.add(name.split()[0])
    return found


def test_who_takes_what_is_said_of_all_that_take_it() -> None:
    text = " ".join((ROOT / "docs" / "cli.md").read_text().split())

    def named(pattern: str) -> set[str]:
        (found,) = re.findall(pattern, text)
        return set(re.findall(r"`([a-z]+)`", found))

    adapted = named(r"Commands that load a model on this machine \((.*?)\) take `--adapter FOLDER`")
    assert adapted == taking("--adapter")
    assert adapted - named(r"All of these but (.*?) take `--open-weights`") == taking("--open-weights") - {"party"}
    planned = named(r"Answers differ in last places only\. Also of (.*?) \|") | {"generate", "bench", "cost", "audit"}
    assert planned == taking("--plan")
