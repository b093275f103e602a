"""The list of mutants fits the program: every text is there once, and every test that is named exists."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import mutants
from tests.mutants import ROOT, Edit, Mutant

ALL = mutants.read()


def test_there_are_enough_of_them() -> None:
    assert len(ALL) >= 40 and len({mutant.name for mutant in ALL}) == len(ALL)
    assert 10 <= sum(mutant.quick for mutant in ALL) <= 20
    rooms = {edit.file.split("/")[2] for mutant in ALL for edit in mutant.edits}
    assert {"mpc", "crypto", "wire", "client", "engine", "party", "store", "net"} <= rooms


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_a_mutant_can_be_made_and_its_tests_exist(mutant: Mutant) -> None:
    for name, text in mutants.mutated(mutant).items():
        ast.parse(text, name)
    for test in mutant.tests:
        path, _, function = test.partition("::")
        assert (ROOT / path).is_file(), path
        assert f"def {function.partition('[')[0]}" in (ROOT / path).read_text(), test
    assert mutant.breaks


def test_a_text_that_is_gone_or_there_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    for text in ("y = 1\n", "x = 1\n"):
        with pytest.raises(ValueError, match=r"times in a\.py"):
            mutants.mutated(Mutant("m", "it", [], [Edit("a.py", text, "")]), tmp_path)
