"""What tests share: tiny checkpoints on disk, one trio of real processes, and a watch over every stream of masks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from puma.local import cluster
from puma.local.cluster import Trio
from puma.store import folders
from tests.models import tiny
from tests.watching import loaded, positions

positions.install()
# Parties that tests start are watched as well.
Trio.__init__.__kwdefaults__["program"] = cluster.PARTY = loaded.PROGRAM  # type: ignore[index]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; tests interrupt their processes
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _repeats_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file to which the processes that tests start write what they have read twice."""
    path = tmp_path_factory.mktemp("repeats") / "repeats"
    path.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(positions.REPORT, str(path))
        yield path


@pytest.fixture(autouse=True)
def no_position_serves_twice(request: pytest.FixtureRequest, _repeats_elsewhere: Path) -> Iterator[positions.Positions]:
    """At client, owner and all parties, whether threads or processes: what a stream has given masks one thing only.

    With the marker `masks_again` an owner may mask parameters again, the same under the same masks.
    """
    before = _repeats_elsewhere.stat().st_size
    with positions.watching() as seen:
        yield seen
    text = _repeats_elsewhere.read_text()
    repeats = seen.repeats + [line for line in text[before:].splitlines() if line not in seen.repeats]
    if request.node.get_closest_marker("masks_again"):
        repeats = [line for line in repeats if not (line.startswith(positions.OUTSIDER) and "stream 'weight " in line)]
    assert not repeats, "\n".join(repeats[:10])


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny checkpoint of each kind."""
    folder = tmp_path_factory.mktemp("checkpoints")
    kinds = {"llama": tiny.llama, "gpt2": tiny.gpt2, "bert": tiny.bert, "classifier": tiny.classifier}
    return {name: write(folder / name) for name, write in kinds.items()}


@pytest.fixture(scope="session")
def processes() -> Iterator[Trio]:
    """Three party processes that many tests use one after the other; do not break them."""
    with Trio() as trio:
        yield trio


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """The folder of a real checkpoint under PUMA_TEST_DATA, or a skip."""

    def find(name: str) -> Path:
        root = os.environ.get("PUMA_TEST_DATA")
        if not root or not (Path(root) / name).is_dir():
            pytest.skip(f"PUMA_TEST_DATA names no folder that holds {name}")
        return Path(root) / name

    return find


@pytest.fixture(autouse=True, scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What programs remember of each other lies apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder whose files stay in memory."""
    shm = Path("/dev/shm")
    if not (shm.is_dir() and folders.in_memory(shm)):
        pytest.skip("this machine has no tmpfs at /dev/shm")
    folder = shm / f"puma-test-{os.getpid()}-{os.urandom(4).hex()}"
    folder.mkdir(mode=0o700)
    yield folder
    folders.remove(folder)
