"""What the documents say of the code is so: names, paths, costs, bounds of tables."""

from __future__ import annotations

import ast
import pkgutil
import re
import tomllib
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

import puma
from puma.measure import cost_table
from puma.models.families import FAMILIES
from puma.mpc.cost import DECLARED
from puma.nn import delta, splines
from puma.nn.splines import Spline

ROOT = Path(puma.__file__).parents[2]
BESIDE = [ROOT / "Makefile", ROOT / ".ci" / "run", *(ROOT / "deploy").rglob("*"), *(ROOT / "examples").glob("*.py")]
FOLDERS = ("src", "tests", "benchmarks", "examples")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LIVING = [page for page in PAGES if page.name not in ("CHANGELOG.md", "log.md")]  # these two tell of what was
CODE = re.compile(r"`([A-Za-z_][\w.]*)(?:\(\))?`")
FILE = re.compile(r"`([a-z]+/[\w./-]+\.(?:py|md|toml|service|json))(?:::\w+)?`")
IMPORTED = re.compile(r"\bfrom (puma[\w.]*) import (?:\(([\w,\s]+)\)|([\w, ]+))")
MODULE = re.compile(r"(?:\bimport|\bfrom|-m) (puma(?:\.\w+)*)")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
REVEALS = re.compile(r"arithmetic\.reveal\b|arithmetic import (?:[\w, ]|\([^)]*)*\breveal\b")
LEMMA = re.compile(r"(?=\*\*Lemma \d+ \()")
HEADING = re.compile(r"\*\*Lemma (\d+) \((.*?)\)\.\*\*", re.DOTALL)
GUARD = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
ROW = re.compile(r"^\| ([\w ,()/-]+) \| \[([-\d]+), ([-\d]+)\) \| (\d+) \| ([\de.-]+) \|", re.MULTILINE)
SUFFIXES = set(
    [
        "json",
        "toml",
        "md",
        "py",
        "crt",
        "key",
        "safetensors",
        "org",
        "com",
        "txt",
        "jsonl",
        "bin",
        "tsv",
        "csv",
        "jinja",
        "gguf",
        "service",
    ]
)


@cache
def names() -> set[str]:
    """All that the source defines or names: modules, functions, classes, attributes, arguments, words of strings."""
    found: set[str] = set()
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        found |= set(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.arg) or (isinstance(node, ast.keyword) and node.arg):
                found.add(node.arg)  # type: ignore[arg-type]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"[A-Za-z_]\w*", node.value))
    return found | FAMILIES.keys()


@pytest.mark.parametrize("page", LIVING, ids=lambda p: p.name)
def test_names_in_code_type_are_names_in_the_code(page: Path) -> None:
    """Words with an underscore or a dot can only mean the program's own."""
    said = {word for word in CODE.findall(page.read_text()) if "_" in word or "." in word}
    ours = {word for word in said if not (ROOT / word).exists() and word.rpartition(".")[2] not in SUFFIXES}
    unknown = {word for word in ours if not all(part in names() for part in word.split("."))}
    assert not unknown, f"{page.name} names what is not there"


def imported(text: str) -> set[str]:
    """What it imports of the package, and modules that it runs, each by its full name."""
    found = set(MODULE.findall(text))
    for module, several, few in IMPORTED.findall(text):
        found |= {f"{module}.{name.split()[0]}" for name in (several or few).split(",") if name.strip()}
    return found


def is_there(name: str) -> bool:
    with suppress(AttributeError, ImportError):
        pkgutil.resolve_name(name)
        return True
    return False


@pytest.mark.parametrize(
    "path", [*LIVING, *(path for path in BESIDE if path.is_file())], ids=lambda p: str(p.relative_to(ROOT))
)
def test_what_is_imported_outside_the_package_is_there(path: Path) -> None:
    """Programs in pages, in the deployment's files, in rules to make: nothing else that is quick runs them."""
    assert not {name for name in imported(path.read_text()) if not is_there(name)}


def test_imports_are_found_wherever_they_stand() -> None:
    module = "puma.models.checkpoint"
    line = f"$(python -c 'from {module} import load, embedded; print(embedded())')"
    assert imported(line) == {module, f"{module}.load", f"{module}.embedded"}
    assert imported("from puma import (\n    receipt,\n    connect as c,\n)") == {
        "puma",
        "puma.receipt",
        "puma.connect",
    }
    assert imported("python -m puma.cli.app") == {"puma.cli.app"}
    assert is_there(f"{module}.load") and not is_there(f"{module}.embedded")


@pytest.mark.parametrize("page", LIVING, ids=lambda p: p.name)
def test_files_named_without_their_folder_are_there(page: Path) -> None:
    there = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert not set(re.findall(r"`([\w ]+\.py)`", page.read_text())) - there


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    linked = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    files = FILE.findall(text) if page in LIVING else []
    named = [name for name in files if not any((ROOT / at / name).exists() for at in ("", "src/puma"))]
    assert not linked and not named, page.name


def floors() -> list[list[str]]:
    """The rooms from the uppermost down, those beside each other together, as the import contract has them."""
    contract, *_ = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [layer.split(" | ") for layer in contract["layers"]]


def test_rooms_are_described_as_the_import_contract_has_them() -> None:
    chain = " > ".join(f"({' | '.join(rooms)})" if len(rooms) > 1 else rooms[0] for rooms in floors())
    assert chain in " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    rooms = {name for layer in floors() for name in layer if (ROOT / "src" / "puma" / name).is_dir()}
    for page, chapter in (("README.md", "## The code"), ("docs/architecture.md", "## Rooms")):
        tree = (ROOT / page).read_text().partition(chapter)[2].split("```")[1]
        assert not {name for name in rooms if f"{name}/" not in tree}, page


def test_there_is_room_where_new_files_go() -> None:
    """Whoever adds what CONTRIBUTING.md has a folder for does not have to make room first."""
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| to add | go to |")[2].partition("\n\n")[0]
    folders = re.findall(r"a file in `([\w/]+)/`", table)
    assert len(folders) >= 5
    for name in folders:
        files = [path for path in (ROOT / "src" / "puma" / name).iterdir() if path.is_file()]
        assert len(files) < 20, f"{name} is full"


def test_what_is_to_be_installed_is_published() -> None:
    """The package itself is not: it is installed from its source."""
    for path in [*LIVING, *(ROOT / "src").rglob("*.py")]:
        assert not re.search(r"pip install[^`\n]*\n?puma", path.read_text()), path


def test_the_table_of_costs_is_the_declarations() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    shown = text.partition("<!-- cost table -->\n")[2].partition("<!-- /cost table -->")[0]
    assert shown.strip() == cost_table.table().strip(), "run `make docs`"


def test_the_table_of_splines_states_the_bounds_that_tests_hold() -> None:
    """Range, lines and bound of each row of docs/protocol.md are those of a table in the code."""
    rows = ROW.findall((ROOT / "docs" / "protocol.md").read_text())
    tables = [found for room in (splines, delta) for found in vars(room).values() if isinstance(found, Spline)]
    known = {(t.low, t.high, 1 << t.width, t.bound) for t in tables}
    assert len(rows) >= 5
    for name, *words in rows:
        low, high, lines, bound = map(float, words)
        as_sigmoid = (2 * low, 2 * high, lines, bound / 2)  # tanh(x) is 2 sigmoid(2x) - 1
        assert (low, high, lines, bound) in known or ("sigmoid(2x)" in name and as_sigmoid in known), name


def lemmas() -> list[tuple[int, str, str]]:
    """Of each lemma of docs/security-proof.md its number, what its heading names, and its text."""
    found = []
    for text in LEMMA.split((ROOT / "docs" / "security-proof.md").read_text())[1:]:
        heading = HEADING.match(text)
        assert heading is not None, text[:60]
        found.append((int(heading[1]), heading[2], text.partition("\n## ")[0]))
    return found


def test_every_primitive_has_a_lemma() -> None:
    """What declares a cost of its own is in a lemma's heading, and what is made of such at least in the text."""
    found = lemmas()
    assert [number for number, *_ in found] == [*range(len(found))]
    named = {name for _, heading, _ in found for name in re.findall(r"`([\w.]+)`", heading)}
    assert {name for name, each in DECLARED.items() if each.cost is not None} <= named
    said = {name for *_, text in found for name in re.findall(r"`([\w.]+)`", text)}
    assert set(DECLARED) <= said


def test_every_lemma_is_guarded_by_tests_that_there_are() -> None:
    for number, _, text in lemmas():
        guards = GUARD.findall(text)
        assert guards or number == 0, f"lemma {number}"  # the first is mathematics
    for path, name in GUARD.findall((ROOT / "docs" / "security-proof.md").read_text()):
        assert not name or f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_nothing_served_reveals() -> None:
    """`arithmetic.reveal` opens a secret to the evaluators; it is for tests."""
    for path in (ROOT / "src").rglob("*.py"):
        assert not REVEALS.search(path.read_text()), path
