"""The reference, transformers, imported once and only by tests that compare with it; and real checkpoints."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Reference = Callable[[Path], Any]


@pytest.fixture(scope="session")
def reference() -> Reference:
    """Open a folder with transformers, in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    def open_folder(folder: Path) -> Any:
        name = transformers.AutoConfig.from_pretrained(folder).architectures[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()

    return open_folder


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """The folder of a real checkpoint under PUMA_TEST_DATA, or a skip."""

    def find(name: str) -> Path:
        root = os.environ.get("PUMA_TEST_DATA")
        if not root or not (Path(root) / name).is_dir():
            pytest.skip(f"PUMA_TEST_DATA names no folder that holds {name}")
        return Path(root) / name

    return find
