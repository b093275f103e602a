"""The reference, transformers, imported once and only by tests that compare with it."""

from __future__ import annotations

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
