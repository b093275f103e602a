"""What docs/security-proof.md says of the code is all that there is to say: nothing else sends, draws, begins a stream
or reacts, so that whoever adds a primitive has to add to the proof."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import puma
from tests.test_documents import ROOT, lemmas

SOURCE = Path(puma.__file__).parent
PARTY = ("mpc", "nn", "models", "engine", "party", "wire", "store", "kernels")  # rooms that run at a party
PROOF = (ROOT / "docs" / "security-proof.md").read_text()

# Who sends, and which lemma says that it may. `send` of a generator is none of a link.
SENDERS = {
    "mpc/party.py Party.correction": 2,
    "mpc/party.py Party.exchange": 3,
    "engine/planner.py measured.ping": 18,
    "engine/planner.py measured.swap": 18,
    "party/agreement.py Agreement.say": 18,
    "party/channel.py Channel._tell": 18,
    "party/dealers/beside.py Beside.recv": 22,
    "party/dealers/beside.py Beside.recv_control": 22,
    "party/dealers/meeting.py settled": 22,
    "party/ending.py part": 18,
    "party/fitting.py _swapped": 18,
    "party/intake.py Intake._say": 18,
    "party/server.py Server._emit": 17,
    "party/server.py Server._infer": 17,
    "party/server.py Server._say": 18,
    "party/session_server.py SessionServer._send_file": 18,
    "party/session_thread.py SessionThread._serve": 18,
    "party/session_thread.py SessionThread.end": 18,
    "wire/twin.py Digested.send": 22,
    "wire/twin.py Twin.send": 22,
    "wire/twin.py Twin.send_control": 22,
}
GENERATORS = {"mpc/party.py Party.run", "mpc/party.py together", "engine/dry_run.py _Word._wanted"}
# Who makes pieces of a message or a correction, and in which lemma.
SPEAKERS = {
    "mpc/arithmetic.py _half": 2,
    "mpc/arithmetic.py _masked": 3,
    "mpc/arithmetic.py open_coarsely": 4,
    "mpc/arithmetic.py reveal": 13,
    "mpc/boolean.py _deal_rows": 7,
    "mpc/boolean.py evaluate": 7,
    "mpc/boolean.py open_masked": 8,
    "mpc/lookup.py _dealt": 10,
}
# Whoever has the dealer deal, and the lemma about it.
DEALING = {
    "mpc/arithmetic.py _wrap": 5,
    "mpc/raising.py raised": 5,
    "mpc/raising.py _turned": 5,
    "mpc/wide/products.py widened": 5,
    "mpc/wide/products.py opened": 5,
    "mpc/boolean.py select": 9,
    "mpc/boolean.py select_all": 9,
    "mpc/boolean.py to_arithmetic": 9,
    "nn/lines.py Lines.weighted": 15,
    "nn/lines.py Lines._where": 15,
    "nn/sampling.py _unsigned": 15,
    "nn/functional.py _hot_rows": 15,
}
# Who begins streams at a place of their own: Lemma 19's table, and the keys that parties meet with.
STAGES = {
    "mpc/party.py Party.stage", "engine/generation.py run_steps", "engine/lookahead.py Ahead._look",
    "engine/offline_phase.py rehearsal", "engine/offline_phase.py performance", "engine/company.py Company._compute",
    "party/server.py Server._infer", "mpc/party.py Party.child_keys",
}  # fmt: skip


def functions(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call, with the function around it."""

    def walk(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[str, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield ".".join(names), child
            own = (child.name,) if isinstance(child, ast.FunctionDef | ast.ClassDef) else ()
            yield from walk(child, (*names, *own))

    return walk(tree, ())


def callers(rooms: tuple[str, ...], called: Callable[[str, ast.Call], bool]) -> set[str]:
    """Functions of these rooms that call what is wanted, by file and name."""
    found = set[str]()
    for room in rooms:
        for path in sorted((SOURCE / room).rglob("*.py")):
            for name, call in functions(ast.parse(path.read_text())):
                last = getattr(call.func, "attr", getattr(call.func, "id", ""))
                if called(last, call):
                    found.add(f"{path.relative_to(SOURCE)} {name}")
    return found


def test_nothing_else_sends() -> None:
    found = callers(PARTY, lambda name, call: name in ("send", "send_control") and isinstance(call.func, ast.Attribute))
    assert found == SENDERS.keys() | GENERATORS


def test_nothing_else_makes_a_message() -> None:
    """In files of rooms within mpc, too."""
    found = callers(PARTY, lambda name, _: name in ("Piece", "correction"))
    assert found == SPEAKERS.keys()


def test_nothing_else_deals() -> None:
    """What the dealer sends is a function of masks: whoever writes another such function says so in the proof."""
    assert callers(PARTY, lambda name, _: name == "deal") == DEALING.keys()


@pytest.mark.parametrize("known", [SENDERS, SPEAKERS, DEALING], ids=["senders", "speakers", "dealing"])
def test_whatever_sends_is_in_the_lemma_that_says_why_it_may(known: dict[str, int]) -> None:
    texts = {number: text for number, _, text in lemmas()}
    for each, number in known.items():
        path, _, name = each.partition(" ")
        stem, words = Path(path).stem, [part.strip("_") for part in name.split(".")]
        said = {word for code in re.findall(r"`([\w./]+)`", texts[number]) for word in re.split(r"[./]", code)}
        assert said & {stem, *words, *(part.lower() for part in words)} or path.startswith("mpc/party"), each


def test_what_is_drawn_has_a_purpose_that_the_proof_names() -> None:
    table = PROOF.partition("| pair | purpose: for |")[2].partition("\n\n")[0]
    purposes = set(re.findall(r"[a-z]+(?:-[a-z]+)?", table))
    drawn = set[str]()
    for path in SOURCE.joinpath("mpc").rglob("*.py"):
        for _, call in functions(ast.parse(path.read_text())):
            last = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if last in ("words", "own_words", "common_words", "random_bytes"):
                drawn |= {
                    arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
                }
    assert drawn >= {"mask", "one-hot", "bit", "bit-deal", "random"} and drawn <= purposes


def test_nothing_else_begins_a_stream() -> None:
    found = callers(("mpc", "nn", "engine", "party"), lambda name, _: name in ("stage", "child_keys", "child"))
    assert found == STAGES
    table = next(text for number, _, text in lemmas() if number == 19)
    for each in STAGES - {"mpc/party.py Party.stage", "mpc/party.py Party.child_keys"}:
        name = each.partition(" ")[2]
        assert name in table or name.partition(".")[0] in table, each


def test_what_each_command_reacts_to_is_listed() -> None:
    """Section 8 is complete for the programs of this project."""
    table = PROOF.partition("## 8. Reactions")[2].partition("## 9.")[0]
    commands = {path.stem for path in (SOURCE / "cli" / "commands").rglob("*.py")} - {"__init__"}
    assert len(commands) > 20
    assert not {name for name in commands if f"`puma {name}`" not in table and f"`puma {name} " not in table}
