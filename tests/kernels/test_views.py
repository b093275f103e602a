"""What is compiled is compiled again when anything changes that it is made of."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from puma import kernels
from puma.kernels import cpu_onehot, views
from puma.kernels.startup import warmup

FILES = sorted(views.ROOM.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_a_file_imports_is_found(file: Path) -> None:
    """Wherever else than in functions, which are not compiled."""
    found = views.made_of(file)
    for node in ast.parse(file.read_text()).body:
        room, *inside = (getattr(node, "module", None) or "").split(".")[1:] or [""]
        if not isinstance(node, ast.ImportFrom) or room != "kernels":
            continue
        place = views.ROOM.joinpath(*inside)
        for path in (place.with_suffix(".py"), *(place / f"{alias.name}.py" for alias in node.names)):
            assert not path.is_file() or views.made_of(path) <= found, path


def test_every_compiled_function_is_kept_with_all_that_went_into_it() -> None:
    """Of the function's own file numba looks by itself. An upgrade that changes another one would leave old code."""
    functions = warmup._functions()
    assert len(functions) > 40
    for function in functions:
        _, origin = function._cache._cache_file._source_stamp
        assert origin == views.origin(Path(function.py_func.__code__.co_filename)), function


def test_code_is_of_one_origin_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name, more in (("before", ""), ("after", "# another\n")):
        room = tmp_path / name
        shutil.copytree(views.ROOM, room, ignore=shutil.ignore_patterns("__pycache__"))
        with (room / "tiles.py").open("a") as file:
            file.write(more)
        monkeypatch.setattr(views, "ROOM", room)
        found.append({path.name: views.origin(path) for path in room.glob("cpu_*.py")})
    before, after = found
    changed = {name for name in before if before[name] != after[name]}
    assert {"cpu_matmul.py", "cpu_packed.py", "cpu_stored.py"} <= changed
    assert before["cpu_bits.py"] == after["cpu_bits.py"] == views.origin(Path(views.__file__).with_name("cpu_bits.py"))


def test_code_for_another_processor_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where machines share a folder, or an image was made elsewhere: then somebody has to compile, and says so."""
    kernels.parity(torch.arange(3))
    assert warmup._on_disk(cpu_onehot._parity)
    codegen = cpu_onehot._parity.targetctx.codegen()
    monkeypatch.setattr(type(codegen), "magic_tuple", lambda _: ("x86_64-unknown-linux-gnu", "another", ""))
    assert not warmup._on_disk(cpu_onehot._parity)


@pytest.mark.slow
def test_where_nothing_is_compiled_yet_one_call_of_each_kernel_compiles_all(tmp_path: Path) -> None:
    """Else every start would compile again, and say that it is for the first use."""
    code = "from puma.kernels.startup import warmup; warmup.compile_kernels(); print(warmup.state().ready)"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"
