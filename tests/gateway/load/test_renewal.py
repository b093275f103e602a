"""New sessions for those that have ended: not before it is known why they have."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from typing import Any

from puma.errors import ProtocolError
from puma.gateway.load.worker import Worker
from puma.gateway.watch import Watch
from tests.gateway.conftest import until


class Ending:
    """A session, and the cluster that it belongs to, whose parties deviate; nobody has noticed until `told`."""

    in_company, cost, said = True, None, ()

    def __init__(self) -> None:
        self.links, self.over, self.asked, self.told = list[Any](), False, 0, threading.Event()

    @property
    def session(self) -> Ending:
        return self

    def another(self) -> Ending:
        return Ending()

    def close(self) -> None:
        pass

    def run(self, _: object) -> Generator[None, None, None]:
        self.over = True  # and the parties are told so, which takes a while
        assert self.told.wait(30)
        raise ProtocolError("two parties sent different copies", "look at them")
        yield


def test_parties_that_deviated_are_not_asked_again_while_that_is_being_told() -> None:
    """Whoever comes meanwhile does not make them look new."""
    asyncio.run(_asked_twice())


async def _asked_twice() -> None:
    made, asked = list[Ending](), threading.Event()

    def start() -> Any:
        made.append(Ending())
        return made[-1]

    def second(_: Any) -> Generator[None, None, None]:
        asked.set()
        yield

    worker = Worker(start, waiting=4, together=2)
    worker.submit(lambda cluster: made[0].run(cluster), Watch("first"))
    until(lambda: bool(made) and made[0].over)
    worker.submit(second, Watch("second"))
    until(asked.is_set)
    made[0].told.set()
    until(lambda: worker.state == "failed")
    worker.close()
    assert len(made) == 1 and worker._shut is not None
