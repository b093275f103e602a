"""The hub's place: a folder that stands for a repository, from which files come as its client would fetch them."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects


class Hub:
    """Repositories that are folders below `folder`; `cache` is where their files come, `fetched` which they were."""

    def __init__(self, folder: Path, cache: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.cache, self.fetched = folder, cache, list[str]()
        patch.setattr(huggingface_hub, "snapshot_download", self._snapshot)
        patch.setattr(huggingface_hub, "list_repo_files", self.files)

    def files(self, name: str) -> list[str]:
        """All files of a repository."""
        paths = sorted((self.folder / name).rglob("*"))
        return [path.relative_to(self.folder / name).as_posix() for path in paths if path.is_file()]

    def _snapshot(self, name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        for file in filter_repo_objects(
            self.files(name), allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            target = self.cache / name / file
            if not target.is_file():
                self.fetched.append(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / name / file, target)
        (self.cache / name).mkdir(parents=True, exist_ok=True)
        return str(self.cache / name)
