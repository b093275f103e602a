"""What each party was sent for a request, and its cost: of that request alone, and only for who asked it."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from puma.gateway.refusals import Refused
from puma.gateway.watch import KEPT, SHOWN, Tap, Watches, noting
from tests.gateway.conftest import Served, openai, serving, until
from tests.models import tiny

ASKED = {"model": "tiny", "prompt": "the cat", "max_tokens": 2, "temperature": 0}


def looked(served: Served, identity: str) -> tuple[int, Any]:
    """The status and JSON of a look."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("GET", f"/watch/{identity}")
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def chosen(letter: str) -> dict[str, Any]:
    return {"extra_headers": {"x-client-request-id": letter * 32}}


def test_what_parties_see_is_what_was_sent(served: Served) -> None:
    seen = []
    for letter in "ab":
        answer = served.client.completions.create(**ASKED, **chosen(letter))
        assert answer._request_id == letter * 32  # where OpenAI's client looks for it
        seen.append(looked(served, letter * 32)[1])
    first, again = seen
    dealer, *evaluators = first["parties"]
    assert dealer["data"] == 0 and dealer["sample"] == "" and dealer["control"] > 5 * 32
    assert all(p["data"] > 0 and len(p["sample"]) == 2 * min(SHOWN, p["data"]) for p in evaluators)
    assert first["cost"]["bytes"]["client"] == sum(p["data"] for p in first["parties"])
    assert first["state"] == "done" and first["cached"] == 0 and first["seconds"] > 0
    # The same prompt, and yet nothing of what was sent is the same.
    assert all(a["sample"] != b["sample"] for a, b in zip(evaluators, again["parties"][1:], strict=True))
    # A later request of somebody else's changes nothing of the first.
    assert looked(served, "a" * 32)[1] == first


def test_who_does_not_know_the_id_sees_nothing(served: Served) -> None:
    answer = served.client.completions.create(**ASKED)
    assert len(answer._request_id) >= 32  # drawn here, where nobody named one
    assert looked(served, answer._request_id)[0] == 200
    for other in ("x" * 32, "", answer._request_id[:-1], answer._request_id.upper()):
        status, body = looked(served, other)
        assert status == 404 and "parties" not in body and body["error"]["message"]


@pytest.mark.parametrize("identity", ["short", "x" * 65, "y" * 31 + "!"])
def test_ids_that_could_be_guessed_are_refused(identity: str, served: Served) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        served.client.completions.create(**ASKED, extra_headers={"x-client-request-id": identity})
    assert refused.value.param == "x-client-request-id"


def test_an_id_serves_once(served: Served) -> None:
    served.client.completions.create(**ASKED, **chosen("c"))
    with pytest.raises(openai.BadRequestError, match="draw a new one"):
        served.client.completions.create(**ASKED, **chosen("c"))


def test_a_request_is_watched_from_the_queue_to_its_end(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "long", num_hidden_layers=1, max_position_embeddings=512)
    with serving(folder, most=400, together=1) as found:
        first = found.client.completions.create(**ASKED | {"max_tokens": 400}, stream=True, **chosen("d"))
        next(iter(first))
        asking = threading.Thread(target=lambda: found.client.completions.create(**ASKED, **chosen("e")))
        asking.start()
        until(lambda: looked(found, "e" * 32)[0] == 200)
        waiting = looked(found, "e" * 32)[1]
        running = looked(found, "d" * 32)[1]
        assert running["state"] == "running" and running["cost"] is None and running["parties"][1]["data"]
        if waiting["state"] == "waiting":  # the first may have ended, on a quick machine
            assert waiting["ahead"] == 1 and not waiting["parties"][1]["data"] and waiting["seconds"] == 0
        first.close()
        asking.join(30)
        until(lambda: looked(found, "d" * 32)[1]["state"] == "stopped")
        assert looked(found, "d" * 32)[1]["cost"]["rounds"] and looked(found, "e" * 32)[1]["state"] == "done"


def test_what_goes_over_a_session_is_noted_for_the_request_on_its_way() -> None:
    links = [SimpleNamespace(send=lambda *_: None, send_control=lambda _: None, recv=bytes) for _ in range(3)]
    session = SimpleNamespace(links=[Tap(link) for link in links], cost=None)
    watches = Watches()
    one, other = watches.begin(), watches.begin()
    with noting(session, one):
        session.links[1].send(b"x" * 60)
        session.links[2].send_control(b"seed")
        session.links[0].recv(8)
        session.cost = "theirs"
    session.links[1].send(b"y")
    dealer, first, second = one.parties
    assert (first.data, first.sample, second.control, dealer.received) == (60, b"x" * SHOWN, 4, 8)
    assert one.cost == "theirs" and other.cost is None and not any(sent.data for sent in other.parties)


def test_only_so_many_are_remembered() -> None:
    watches = Watches()
    first, *rest = [watches.begin() for _ in range(KEPT + 1)]
    with pytest.raises(Refused, match="no request of this id"):
        watches.of(first.id)
    assert watches.of(rest[0].id) is rest[0]
