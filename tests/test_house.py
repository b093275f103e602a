"""The house rules that a machine can check: size, names, floors, and that a secret cannot be looked at."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_args

import pytest
import torch

import puma
from puma import kernels
from puma.models import config
from puma.models.architectures import ARCHITECTURES
from puma.mpc.cost import DECLARED
from puma.mpc.lookup import digit
from puma.mpc.seeded import Seeded
from puma.mpc.share import Secret
from tests.cases import coins
from tests.trio import given, given_additive, given_bits, given_choice, parties

ROOT = Path(puma.__file__).parent
REPOSITORY = ROOT.parents[1]
FILES = sorted(ROOT.rglob("*.py"))
VAGUE = {"utils", "util", "common", "base", "core", "manager", "handler", "helpers", "misc"}


def test_the_source_was_found() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_well_named_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert not VAGUE & set(path.relative_to(ROOT).with_suffix("").parts)
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module opens with what it is for"
    names = {n.name.lower() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    assert not any(name.endswith(("manager", "handler", "utils")) for name in names)


def test_folders_are_small_and_tests_are_short_files_too() -> None:
    for top in ("src", "tests", "benchmarks", "examples", "docs"):
        rooms = [REPOSITORY / top, *(path for path in (REPOSITORY / top).rglob("*") if path.is_dir())]
        for folder in (path for path in rooms if path.name != "__pycache__"):
            files = [path for path in folder.iterdir() if path.is_file()]
            assert len(files) <= 20, f"{folder.relative_to(REPOSITORY)} holds {len(files)} files"
            for path in (path for path in files if path.suffix == ".py"):
                assert len(path.read_text().splitlines()) <= 400, path.relative_to(REPOSITORY)


def test_every_requirement_is_pinned_once() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    required = {*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())}
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = [line.partition("==")[0] for line in lines if "==" in line and not line.startswith("#")]
    assert len(set(pinned)) == len(pinned)
    assert {re.split(r"[>\[]", name)[0] for name in required} - {"puma-mpc"} <= set(pinned)


# Classes more than one step below another of ours. What all secrets refuse is said once; so is how a link is talked to.
DEEP = {"Share", "Additive", "Bits", "Clear", "ClearSum", "Public", "Seeded", "ClusterSession"}


def test_inheritance_is_shallow() -> None:
    classes = [
        node for path in FILES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    ]
    parents = {node.name: [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases] for node in classes}

    def depth(name: str) -> int:
        return 1 + max(map(depth, parents[name]), default=0) if name in parents else 0

    errors = {node.name for node in ast.parse((ROOT / "errors.py").read_text()).body if isinstance(node, ast.ClassDef)}
    assert {name for name in parents if depth(name) > 2} - errors == DEEP
    assert max(map(depth, parents)) <= 4


def test_no_code_is_read_from_data_and_no_seed_is_taken() -> None:
    """What ruff bans by name, and what it cannot see."""
    banned = ("pickle", "random", "secrets", "marshal", "shelve", "dill")
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & set(banned), path
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                assert (node.module or "").split(".")[0] not in banned, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                assert not called.startswith(("torch.rand", "torch.load", "torch.manual_seed", "np.random")), path
            if isinstance(node, ast.arg):
                assert node.arg != "seed" or path.parent.name not in ("mpc", "nn"), path


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Public functions and classes that the module defines, and the public methods of these classes."""
    for name, found in vars(module).items():
        if name.startswith("_") or getattr(found, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(found) or inspect.isclass(found):
            yield name, found


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class defines itself."""
    for name, found in vars(kind).items():
        if not name.startswith("_") and isinstance(found, FunctionType | property | classmethod | staticmethod):
            yield name, getattr(kind, name)


ROOMS = sorted({path.relative_to(ROOT).parts[0] for path in FILES if path.parent != ROOT})
NAMES = [".".join(("puma", *path.relative_to(ROOT).with_suffix("").parts)) for path in FILES if path.stem[0] != "_"]


@pytest.mark.parametrize("room", [*ROOMS, ""])
def test_everything_public_is_described(room: str) -> None:
    """A method may leave it to the one that it overrides."""
    bare = []
    for name in [n for n in NAMES if (n.split(".")[1] == room if room else n.count(".") == 1)]:
        if room == "gateway":
            pytest.importorskip("starlette")
        for label, found in public(import_module(name)):
            written = found.__doc__ and not (inspect.isclass(found) and found.__doc__.startswith(f"{label}("))
            bare += [] if written else [f"{name}.{label}"]
            for member, method in members(found) if inspect.isclass(found) else ():
                bare += [] if inspect.getdoc(method) else [f"{name}.{label}.{member}"]
    assert not bare


LOCAL = {
    "arithmetic.before_cut",
    "boolean.own_bits",
    "boolean.flipped",
    "boolean.mask_products",
    "boolean.coefficients",
    "raising.raised_to",
    "inverses.leading",
    "inverses.reciprocal_table",
    "inverses.rsqrt_table",
    "compare.split",
    "compare.turns",
    "compare.meetings",
    "compare.best",
    "compare.digit_bits",
    "compare.sign_of",
    "lookup.digit",
    "lookup.halved",
    "lookup.sign_bits",
    "lookup.topped",
    "lookup.each_of",
    "retrieval.choice_bytes",
    "functional.component",
    "fixed.index_bits",
    "sampling.with_noise",
    "fixed.gated_ring",
    "fixed.logit_ring",
    "fixed.product_ring",
    "sampling.tables",
    "sampling.counting",
}


@pytest.mark.parametrize(
    "name",
    [
        "mpc.arithmetic",
        "mpc.boolean",
        "mpc.lookup",
        "mpc.compare",
        "mpc.fixed",
        "mpc.raising",
        "mpc.retrieval",
        "nn.functional",
        "nn.inverses",
        "nn.sampling",
        "nn.pooling",
    ],
)
def test_every_primitive_declares_its_cost(name: str) -> None:
    """Parts of primitives, and what only computes shapes, are named in LOCAL."""
    for label, found in public(import_module(f"puma.{name}")):
        key = f"{name.partition('.')[2]}.{label}"
        if inspect.isfunction(found) and not label.endswith("_cost"):
            assert key in DECLARED or key in LOCAL, f"{key} declares no cost"


# Parts of primitives that talk and whose cost is counted with theirs.
PARTS = {
    "attention.divided",
    "attention.exponentials",
    "attention.finest_inverse",
    "attention.inverse_sums",
    "attention.quotient",
    "compare.best",
    "compare.sign_of",
    "gates.activated",
    "gates.gated",
    "party.together",
    "splines.lines_at",
    "splines.looked_up",
}


def test_whatever_talks_declares_its_cost_or_is_part_of_what_does() -> None:
    talks = set()
    for name in (name for name in NAMES if name.split(".")[1] in ("mpc", "nn")):
        for label, found in public(import_module(name)):
            if inspect.isfunction(found) and "Protocol[" in str(found.__annotations__.get("return", "")):
                talks.add(f"{name.split('.')[-1]}.{label}")
    assert talks - set(DECLARED) == PARTS


# -- secrets --------------------------------------------------------------------------------------------------------


def secrets() -> list[Secret]:
    """One of each kind, as P1 holds it."""

    def make(party: Any) -> list[Secret]:
        x = given(party, torch.tensor([123456.0]), 40, 4)
        streams = [party._stream(rank, "house") for rank in (1, 2) if party.rank in (0, rank)]
        seeded = Seeded(party, None if party.is_dealer else kernels.pack_bytes(x.m, 40), streams, (1,), 40, 4)
        choice = given_choice(party, [0], 1, 40)
        return [x, given_additive(party, torch.ones(1)), given_bits(party, coins(1)), seeded, choice]

    return parties(make)[1]


@pytest.mark.parametrize("convert", [bool, int, float, iter, list, hex, lambda s: [1, 2][s], lambda s: 1 if s else 0])
def test_secrets_decide_nothing(convert: Callable[[Any], Any]) -> None:
    import numpy as np

    for secret in secrets():
        with pytest.raises(TypeError):
            convert(secret)
        with pytest.raises(TypeError):
            np.asarray(secret)


def test_secrets_show_their_shape_only() -> None:
    for secret in secrets():
        text = f"{secret!r} {secret}"
        assert "shape=(1," in text
        digits = [word for word in "".join(c if c.isdigit() else " " for c in text).split() if len(word) > 2]
        assert not digits, text


def test_digits_and_parties_show_no_words_either() -> None:
    (_, d, _) = parties(lambda p: digit(given(p, torch.tensor([7]), 40), 0, 6))
    assert repr(d) == "Digit(shape=(1,), width=6)"
    (_, key, _) = parties(lambda p: (repr(p), *map(repr, p._keys.values())))
    assert key == ("Party(rank=1)", "PairKey(...)", "PairKey(...)")


# -- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        p
        for floor in ("net", "wire", "store", "engine", "party", "client", "local", "measure", "gateway", "audit")
        for p in sorted((ROOT / floor).rglob("*.py"))
    ],
    ids=str,
)
def test_decoders_are_made_before_threads_are(path: Path) -> None:
    """Two threads that decode a type at the same moment, each for the first time, crash msgspec 0.22."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    late = [
        c.lineno for c in calls if ast.unparse(c.func).endswith(".decode") and any(k.arg == "type" for k in c.keywords)
    ]
    assert not late, f"{path.name}:{late}: make the decoder when the module is imported"


# -- floors ---------------------------------------------------------------------------------------------------------


def test_files_of_text_are_read_as_what_they_are() -> None:
    """Where nothing is said Python takes the letters of whoever runs it."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("read_text", "write_text"):
                assert any(word.arg == "encoding" for word in node.keywords), f"{path}:{node.lineno}"


def test_what_an_address_is_taken_of_is_held() -> None:
    """A tensor without a name may be gone when compiled code looks behind its address: also one from a cache, where
    two threads that ask for it first get one each."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("data_ptr", "ctypes"):
                assert not any(isinstance(part, ast.Call) for part in ast.walk(node.value)), f"{path}:{node.lineno}"


def test_each_floor_uses_only_those_below() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which("lint-imports")
    if command is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_front_door_is_light() -> None:
    """`import puma` must not load torch: a command line that prints help should not take seconds."""
    heavy = "{'torch', 'numba', 'numpy', 'transformers'}"
    code = f"import sys, puma; loaded = {heavy} & set(sys.modules); sys.exit(', '.join(loaded) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- architectures --------------------------------------------------------------------------------------------------
# Above the models nobody asks which class a config is of: an architecture answers for itself, so one more is one file.

ABOVE = ("wire", "store", "engine", "party", "client", "local", "reference", "measure", "gateway", "audit", "cli")
CONFIGS = {name for name, value in vars(config).items() if value in get_args(config.Config)}  # aliases, too
FIELDS = {field for each in get_args(config.Config) for field in each.__struct_fields__}
KINDS = {architecture.kind for architecture in ARCHITECTURES.values()} | {"tokens", "pixels"}


def named(node: ast.AST) -> set[str]:
    """All names in an expression, and the last parts of those with dots."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def asks_which(node: ast.AST) -> bool:
    """Whether an expression asks which config it has, or what it might have."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
        first = node.args[0]
        if node.func.id in ("isinstance", "issubclass"):
            return bool(named(node.args[1]) & CONFIGS)
        if node.func.id == "type":
            return ast.unparse(first).split(".")[-1] == "config"
        if node.func.id in ("getattr", "hasattr"):
            second = ast.unparse(node.args[1]).strip("'\"")
            return ast.unparse(first).split(".")[-1] == "config" or second in FIELDS
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        kinds = any(named(side) & {"kind", "family"} or "'family'" in ast.unparse(side) for side in sides)
        words = any(isinstance(side, ast.Constant) and side.value in KINDS for side in sides)
        return (kinds and words) or any(named(side) & CONFIGS for side in sides)
    if isinstance(node, ast.MatchClass):
        return bool(named(node.cls) & CONFIGS)
    return isinstance(node, ast.ImportFrom) and (node.module or "").startswith("puma.models.architectures.")


@pytest.mark.parametrize("floor", ABOVE)
def test_nobody_above_the_models_asks_which_config_it_is(floor: str) -> None:
    paths = sorted((ROOT / floor).rglob("*.py"))
    assert paths
    for path in paths:
        found = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if asks_which(node)]
        assert not found, f"{path.relative_to(ROOT)} asks {found}: let the architecture answer (models/architecture.py)"


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("isinstance(self.config, Vit)", True),
        ("isinstance(c, Decoder | T5)", True),
        ("isinstance(c, (int, config.Encoder))", True),
        ("isinstance(c, Llama)", True),
        ("getattr(self.config, 'whatever', 1)", True),
        ("getattr(c, 'type_vocab_size', 1)", True),
        ("hasattr(model, 'predicts')", True),
        ("type(self.config) is x", True),
        ("architecture(config).kind == 'causal'", True),
        ("inputs(config).kind != 'pixels'", True),
        ("settings.family != 'encoder' or settings.labels", True),
        ("row['family'] == 'causal'", True),
        ("c.__class__ is Vit", True),
        ("match c:\n    case PatchEncoder():\n        pass", True),
        ("from puma.models.architectures.vit import Model", True),
        ("isinstance(request, Generate)", False),
        ("getattr(request, 'tokens', 1)", False),
        ("heads(config).generates and config.layers > 1", False),
        ("from puma.models import architecture", False),
    ],
)
def test_such_questions_are_seen(source: str, caught: bool) -> None:
    assert any(map(asks_which, ast.walk(ast.parse(source)))) == caught


def test_there_is_something_to_ask_for() -> None:
    assert {"Decoder", "Vit", "PatchEncoder", "Llama"} <= CONFIGS and {"labels", "predicts"} <= FIELDS
