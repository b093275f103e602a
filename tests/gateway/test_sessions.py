"""One request at a time, those that wait, those that leave, and what happens when the parties fail."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puma.errors import FrameError
from tests.gateway.conftest import Served, openai, serving, until
from tests.models import tiny

ASKED = {"model": "tiny", "prompt": "the cat", "max_tokens": 400}


@pytest.fixture
def long(tmp_path: Path) -> Any:
    """A gateway whose answers take long."""
    folder = tiny.llama(tmp_path / "long", num_hidden_layers=1, max_position_embeddings=512)
    with serving(folder, most=400, waiting=1, together=1) as found:
        yield found


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test opens is closed after it."""
    opened: list[http.client.HTTPConnection] = []
    connect = http.client.HTTPConnection.connect

    def noting(self: http.client.HTTPConnection) -> None:
        opened.append(self)
        connect(self)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", noting)
    yield
    for connection in opened:
        connection.close()


def post(served: Served, body: dict[str, Any], **headers: str) -> http.client.HTTPConnection:
    """A request that is sent and not yet read."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"} | headers)
    return connection


def idle(served: Served) -> bool:
    return served.gateway.worker.queued == 0


def cut(connection: http.client.HTTPConnection) -> None:
    """Leave without a word."""
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_stops_the_parties_at_the_next_token(stream: bool, long: Served) -> None:
    asking = post(long, ASKED | {"stream": stream})
    if stream:
        answer = asking.getresponse()
        assert answer.status == 200 and answer.readline().startswith(b"data: {")
        answer.close()
    else:
        until(lambda: long.gateway.worker.state == "ready")
    cut(asking)
    until(lambda: idle(long), 10)
    until(lambda: long.session.cost is not None)
    short = long.session.cost.rounds
    assert long.client.completions.create(**(ASKED | {"max_tokens": 24})).usage.completion_tokens == 24
    assert len(long.clusters) == 1 and short < long.session.cost.rounds


def test_too_many_are_told_to_come_again(long: Served) -> None:
    first = post(long, ASKED | {"stream": True})
    running = first.getresponse()
    running.readline()
    second = post(long, ASKED | {"max_tokens": 1})
    until(lambda: long.gateway.worker.queued == 2)
    with pytest.raises(openai.RateLimitError) as refused:
        long.client.completions.create(**ASKED)
    assert refused.value.code == "rate_limit_exceeded" and refused.value.response.headers["retry-after"]
    running.close()
    cut(first)
    assert second.getresponse().status == 200
    second.close()


def test_who_leaves_the_queue_is_not_served(long: Served) -> None:
    first = post(long, ASKED | {"stream": True})
    running = first.getresponse()
    running.readline()
    second = post(long, ASKED)
    until(lambda: long.gateway.worker.queued == 2)
    cut(second)
    job = next(iter(long.gateway.worker._jobs))
    until(job.left.is_set)
    running.close()
    cut(first)
    until(lambda: idle(long))


def test_a_lost_party_is_named_and_the_next_request_gets_a_new_session(long: Served) -> None:
    first = post(long, ASKED | {"stream": True})
    answer = first.getresponse()
    answer.readline()
    long.clusters[0]._trio.lose(1, "P1 had a power cut")
    lines = [line for line in answer.read().decode().split("\n\n") if line]
    error = json.loads(lines[-1].strip().removeprefix("data: "))["error"]
    assert error["type"] == "service_unavailable" and error["code"] == "PeerLost" and "P1" in error["message"]
    first.close()
    until(lambda: long.gateway.worker.state == "failed")
    health = http.client.HTTPConnection("127.0.0.1", long.port)
    health.request("GET", "/health")
    assert health.getresponse().status == 503
    health.close()
    assert long.client.completions.create(**(ASKED | {"max_tokens": 2})).usage.completion_tokens == 2
    assert len(long.clusters) == 2 and long.gateway.worker.state == "ready"


def test_who_waited_is_told_and_nothing_of_theirs_is_sent(long: Served) -> None:
    first = post(long, ASKED | {"stream": True})
    answer = first.getresponse()
    answer.readline()
    second = post(long, ASKED | {"max_tokens": 1}, **{"x-client-request-id": "w" * 32})
    until(lambda: long.gateway.worker.queued == 2)
    long.clusters[0]._trio.lose(1, "P1 had a power cut")
    answer.read()
    first.close()
    refused = second.getresponse()
    error = json.loads(refused.read())["error"]
    second.close()
    assert refused.status == 503 and refused.headers["x-should-retry"] == "false"
    assert "before this request was sent" in error["message"] and "P1" in error["message"]
    watch = long.gateway.watches.of("w" * 32)
    assert watch.state == "failed" and not any(sent.data or sent.control for sent in watch.parties)
    until(lambda: long.gateway.worker.state == "failed")
    assert len(long.clusters) == 1 and "P1" in str(long.gateway.worker.problem)
    assert long.client.completions.create(**(ASKED | {"max_tokens": 1})).choices
    assert len(long.clusters) == 2 and long.gateway.worker.problem is None


@pytest.mark.parametrize("all_of_them", [False, True], ids=["further sessions", "the first one, too"])
def test_parties_that_let_go_of_sessions_while_nobody_asked(all_of_them: bool, long: Served) -> None:
    """Whoever asks next is answered over new ones: nothing was under way that could be asked twice."""
    short = ASKED | {"max_tokens": 2}
    wanted, before = long.client.completions.create(**short).choices[0].text, long.session
    trio = long.clusters[0]._trio
    for server in (*trio.beside, *(trio.servers if all_of_them else ())):
        server.client.fail("the client was silent for too long")
    until(lambda: before.over)
    assert long.client.completions.create(**short).choices[0].text == wanted
    assert len(long.clusters) == 1 + all_of_them and long.session is not before
    assert long.gateway.worker.problem is None


def test_a_link_that_broke_while_nobody_asked_is_no_silence(long: Served) -> None:
    """What came did not fit: nothing is asked any more, as if somebody had been waiting."""
    long.client.completions.create(**ASKED | {"max_tokens": 1})
    long.session.links[1].inbox.end(FrameError("bad sequence in a frame header"))
    for _ in range(2):
        with pytest.raises(openai.InternalServerError, match="bad sequence") as refused:
            long.client.completions.create(**ASKED)
        assert refused.value.status_code == 502
    assert len(long.clusters) == 1


def test_no_program_asks_again_by_itself_when_a_party_misbehaves(long: Served) -> None:
    from puma.errors import ProtocolError

    begun = []

    def deviate() -> Any:
        begun.append(1)
        raise ProtocolError("P2 sent another shape than the others")

    long.gateway.worker._start = deviate
    eager = long.client.with_options(max_retries=5)
    with pytest.raises(openai.InternalServerError) as refused:
        eager.completions.create(**ASKED)
    assert refused.value.status_code == 502 and refused.value.code == "ProtocolError" and len(begun) == 1
    with pytest.raises(openai.InternalServerError, match="asked nothing more"):  # nor for anybody else
        long.client.completions.create(**ASKED)
    assert len(begun) == 1


def test_a_session_that_cannot_start_is_a_503(long: Served) -> None:
    from puma.errors import PeerLost

    def fail() -> Any:
        raise PeerLost("P2 is not there", "start it")

    start, long.gateway.worker._start = long.gateway.worker._start, fail
    with pytest.raises(openai.InternalServerError) as refused:
        long.client.completions.create(**ASKED)
    assert refused.value.status_code == 503 and refused.value.code == "PeerLost"
    assert "P2 is not there (hint: start it)" in refused.value.message
    long.gateway.worker._start = start
    assert long.client.completions.create(**(ASKED | {"max_tokens": 1})).choices


def test_health(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("GET", "/health")
    found = json.loads(connection.getresponse().read())
    connection.close()
    assert found["model"] == "tiny" and found["status"] in ("idle", "ready") and found["queued"] == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:80"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "Application/JSON; charset=utf-8"}, 400),
        ({"content-length": "99999999"}, 413),
    ],
)
def test_pages_from_elsewhere_cannot_ask(headers: dict[str, str], status: int, served: Served) -> None:
    """Who may ask hears what is wrong with the request."""
    connection = post(served, ASKED | {"max_tokens": -1}, **headers)
    answer = connection.getresponse()
    assert answer.status == status and json.loads(answer.read())["error"]["message"]
    connection.close()


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405)])
def test_other_paths_and_methods(method: str, path: str, status: int, served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request(method, path)
    answer = connection.getresponse()
    assert answer.status == status and json.loads(answer.read())["error"]["type"] == "invalid_request_error"
    connection.close()


@pytest.mark.parametrize("body", ["", "{", '"text"', '{"model": "tiny"}', '{"model": "tiny", "prompt": 5}', b"\xff"])
def test_bodies_that_are_none(body: Any, served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 400 and json.loads(answer.read())["error"]["message"]
    connection.close()


def test_no_thread_stays(llama: Path) -> None:
    before = set(threading.enumerate())
    with serving(llama) as found:
        found.client.completions.create(model="tiny", prompt="the cat", max_tokens=1)
    until(lambda: not [t for t in set(threading.enumerate()) - before if t.name == "session"])
