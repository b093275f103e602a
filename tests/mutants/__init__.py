"""Mutants: small changes to the program that keep its answers right and break secrecy, authentication or a policy.

Each lies in one of the lists beside this file, with the test that must fail under it. `make mutants` tries all of them
(ARGS=--quick a dozen): one that survives, or whose text is no longer in the program, is an error. A list has

    [[mutant]]
    name = "words that say which"
    breaks = "what somebody could do"
    tests = ["tests/mpc/test_view.py::test_something"]
    quick = true                      # one of those that every change must pass
    [[mutant.edit]]
    file = "src/puma/mpc/party.py"
    text = "as it is, exactly once in the file"
    to = "as it would be"
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One replacement."""

    file: str
    text: str
    to: str


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change of the program that a test must notice."""

    name: str
    breaks: str
    tests: list[str]
    edits: list[Edit] = msgspec.field(name="edit")
    quick: bool = False


class _List(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mutants: list[Mutant] = msgspec.field(name="mutant")


def read(folder: Path = HERE) -> list[Mutant]:
    """All mutants, list by list."""
    return [
        mutant
        for path in sorted(folder.glob("*.toml"))
        for mutant in msgspec.convert(tomllib.loads(path.read_text()), _List).mutants
    ]


def mutated(mutant: Mutant, root: Path = ROOT) -> dict[str, str]:
    """The new text of each file that it changes; ValueError if a text to replace is not there exactly once."""
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        before = texts.get(edit.file) or (root / edit.file).read_text()
        if before.count(edit.text) != 1 or edit.text == edit.to:
            raise ValueError(f"{mutant.name}: {before.count(edit.text)} times in {edit.file}: {edit.text!r}")
        texts[edit.file] = before.replace(edit.text, edit.to)
    return texts
