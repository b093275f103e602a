"""Where a user's own things lie, also of a user without a home."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from puma.client import resume, seen
from puma.client.public import fetched
from puma.errors import StoreError
from puma.measure import rates
from puma.reference import plan_cache
from puma.store import folders


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a number that no file of users has, in a container that sets no HOME."""

    def home() -> NoReturn:
        raise RuntimeError("Could not determine home directory.")

    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", home)


def test_a_user_without_a_home(homeless: None) -> None:
    for ask in (seen.state_file, resume.state_folder, fetched.folder, rates.path):
        with pytest.raises(StoreError, match="this user has no home") as refused:
            ask()
        assert "XDG_" in str(refused.value.hint)
    assert plan_cache.folder() is None and rates.known() is None, "what can be made anew is"


def test_a_variable_counts_more(homeless: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folders.of_user("XDG_CACHE_HOME", ".cache") == tmp_path and rates.path().parent == tmp_path / "puma"
