"""A gateway on a real port, in front of three parties in threads, and OpenAI's own client before it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

openai = pytest.importorskip("openai", reason="the openai client is not installed")

from puma.gateway.load.keys import Keys  # noqa: E402
from puma.gateway.server import configured, listen  # noqa: E402
from puma.gateway.service import Gateway  # noqa: E402
from puma.gateway.settings import Settings  # noqa: E402
from puma.local.cluster import LocalCluster  # noqa: E402
from puma.reference.plain_model import PlainModel  # noqa: E402
from tests.models import tiny  # noqa: E402
from tests.threads import Threads  # noqa: E402


class Own(LocalCluster):
    """A cluster that ends its threads with itself."""

    def close(self) -> None:
        super().close()
        self._trio.close()


@dataclass
class Served:
    """A running gateway."""

    gateway: Gateway
    url: str
    port: int
    clear: PlainModel
    clusters: list[Any]

    client: Any
    server: Any

    @property
    def session(self) -> Any:
        """Of the first seat."""
        return self.gateway.worker._seats[0].cluster.session  # type: ignore[union-attr]


@contextmanager
def serving(
    folder: Path, reveal: bool = False, keys: Keys | None = None, api_key: str = "none",
    begin: Callable[[], Any] | None = None, **settings: Any,
) -> Iterator[Served]:  # fmt: skip
    """A gateway for the model in a folder; what `begin` makes answers, if there is one."""
    clear, clusters = PlainModel(folder), list[Any]()

    def start() -> LocalCluster:
        clusters.append(Own(clear, trio=Threads(), reveal_logits=reveal))  # type: ignore[arg-type]
        return clusters[-1]

    chosen = Settings("tiny", most=24, temperature=0.0, together=16, waiting=16)
    makes: Callable[[], Any] = begin or start
    gateway = Gateway(clear, makes, replace(chosen, **settings), keys)
    with running(gateway) as (port, server):
        url = f"http://127.0.0.1:{port}"
        with openai.OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0, timeout=60) as client:
            yield Served(gateway, url, port, clear, clusters, client, server)


@contextmanager
def running(gateway: Gateway) -> Iterator[tuple[int, Any]]:
    """A gateway in a thread: its port and its server, which must end within 20 seconds."""
    bound = listen("127.0.0.1", 0)
    server = configured(gateway)
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield bound.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the gateway does not stop"


def until(true: Callable[[], Any], seconds: float = 60) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


@pytest.fixture(scope="package")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("gateway") / "llama", num_hidden_layers=1)


@pytest.fixture(scope="package")
def served(llama: Path) -> Iterator[Served]:
    """Greedy answers of a tiny LLaMA; do not break it."""
    with serving(llama) as found:
        yield found


@pytest.fixture(scope="package")
def revealing(llama: Path) -> Iterator[Served]:
    """The same, whose owner lets clients see logits."""
    with serving(llama, reveal=True) as found:
        yield found


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """A real one, or a skip that says why."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        except playwright.Error as error:
            pytest.skip(f"{program} does not start: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture(scope="package")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Answers of up to 400 tokens, long enough to be interrupted; do not break it."""
    folder = tiny.llama(tmp_path_factory.mktemp("page") / "long", num_hidden_layers=1, max_position_embeddings=512)
    with serving(folder, most=400) as found:
        yield found
