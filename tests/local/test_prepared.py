"""Requests in two phases: the same answers at the same online cost, from preprocessing that nothing can use twice."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from puma import LocalCluster
from puma.errors import PeerLost, PreprocessingError, StoreError, UsageError
from puma.local.cluster import Trio
from puma.reference.plain_model import PlainModel
from puma.store.preprocessing import PreprocessingStore
from puma.wire import messages as msg
from puma.wire.messages import Generate, Input
from tests.models import tiny
from tests.threads import Threads
from tests.watching.started import gone

PROMPT, TOKENS = "the cat", 1
Start = Callable[[], LocalCluster]


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    """A model of one layer."""
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("one"), num_hidden_layers=1))


@pytest.fixture
def start(memory: Path, clear: PlainModel) -> Iterator[Start]:
    """Start clusters in threads that keep their things in one store."""
    started: list[Threads] = []

    def begin(progress: Any = None) -> LocalCluster:
        for earlier in started:
            earlier.close()  # a store is one trio's at a time
        started.append(Threads(memory))
        return LocalCluster(clear, progress, trio=started[-1])  # type: ignore[arg-type]

    yield begin  # type: ignore[misc]
    for trio in started:
        trio.close()


def files(memory: Path) -> list[Path]:
    """The preprocessing and prepared requests that are left."""
    return [
        path
        for part in ("preprocessing", "prepared_requests")
        for path in memory.glob(f"*/{part}/**/*")
        if path.is_file()
    ]


def length(cluster: LocalCluster) -> int:
    return len(cluster.model.prompt_ids(PROMPT, TOKENS))


def test_a_prepared_request_sends_nothing_offline(start: Start, memory: Path) -> None:
    cluster, tokens = start(), 2
    plain = cluster.generate(PROMPT, tokens)
    prepared_request = cluster.prepare(length(cluster), tokens)
    assert prepared_request.offline == plain.cost.offline and prepared_request.seconds > 0
    assert len(files(memory)) == 4 and [PreprocessingStore(memory / f"p{r}").sizes() for r in range(3)] == [
        [s] for s in prepared_request.sizes
    ]
    assert prepared_request.sizes[2] > sum(prepared_request.sizes[:2]) > 0
    prepared = cluster.generate(PROMPT, tokens)
    assert not files(memory)
    assert prepared.cost.prepared == prepared_request and plain.cost.prepared is None
    assert prepared.token_ids == plain.token_ids
    assert (prepared.cost.online, prepared.cost.offline) == (plain.cost.online, 0)
    assert (prepared.cost.rounds, prepared.cost.client) == (plain.cost.rounds, plain.cost.client)
    again = cluster.generate(PROMPT, tokens)
    assert (again.token_ids, again.cost.offline, again.cost.prepared) == (plain.token_ids, plain.cost.offline, None)


def test_a_later_session_uses_it(start: Start, memory: Path) -> None:
    first = start()
    expected = first.model.greedy(first.model.prompt_ids("a dog", TOKENS), TOKENS)  # type: ignore[attr-defined]
    for _ in range(2):
        first.prepare(length(first), TOKENS)
    first.session.close()
    later = start()
    for left in (4, 0):
        answer = later.generate("a dog", TOKENS)
        assert (answer.token_ids, answer.cost.offline, len(files(memory))) == (expected, 0, left)


@pytest.mark.parametrize("name", ["classifier", "gpt2"])
def test_other_models_prepare_too(name: str, memory: Path, checkpoints: dict[str, Path]) -> None:
    with Threads(memory) as trio:
        cluster = LocalCluster(checkpoints[name], trio=trio)  # type: ignore[arg-type]
        if name == "gpt2":
            expected = cluster.generate(PROMPT, TOKENS).token_ids
            cluster.prepare(length(cluster), TOKENS)
            answer = cluster.generate(PROMPT, TOKENS)
            assert answer.token_ids == expected and answer.cost.offline == 0
            return
        tokens = cluster.model.sentence_ids(PROMPT)
        with pytest.raises(UsageError, match="an encoder generates no tokens"):
            cluster.prepare(len(tokens.ids), 1)
        cluster.prepare(len(tokens.ids))
        encoding = cluster.encode(PROMPT)
        assert_close(encoding.values, cluster.model.encoded(tokens), atol=0.01, rtol=0)  # type: ignore[attr-defined]
        assert encoding.cost.prepared and encoding.cost.offline == 0


def test_two_pieces_have_nothing_in_common(start: Start, memory: Path) -> None:
    cluster = start()
    for _ in range(2):
        cluster.prepare(length(cluster), TOKENS)
    for rank, part in ((0, "preprocessing"), (1, "preprocessing"), (2, "preprocessing")):
        one, two = (p.read_bytes() for p in memory.glob(f"p{rank}/{part}/*/*"))
        assert len(one) == len(two)
        a, b = (torch.frombuffer(bytearray(raw), dtype=torch.uint8)[1024:] for raw in (one, two))
        live = (a != 0) | (b != 0)  # records are filled up with zeros
        same = float((a == b)[live].float().mean()) if int(live.sum()) > 1000 else 0.0
        assert same < 0.02, f"P{rank}: {same}"
    prepared_requests = [p.read_bytes() for p in memory.glob("client/prepared_requests/*")]
    assert len(set(prepared_requests)) == 2


def test_prepared_noise_is_drawn_once(start: Start) -> None:
    """Two prepared requests that draw their tokens: the evaluators' common noise is another each time."""
    cluster = start()
    request = Generate(Input([length(cluster)], []), TOKENS, temperature=1.0)
    for _ in range(2):
        cluster.session.prepare(request)
    for _ in range(2):
        assert cluster.generate(PROMPT, TOKENS, temperature=1.0).cost.prepared


def test_other_requests_leave_it_alone(start: Start, memory: Path) -> None:
    cluster = start()
    cluster.prepare(length(cluster), TOKENS)
    for prompt, tokens in ((PROMPT, TOKENS + 1), (PROMPT + " sat", TOKENS)):
        assert cluster.generate(prompt, tokens).cost.prepared is None
    assert len(files(memory)) == 4
    assert cluster.generate(PROMPT, TOKENS).cost.prepared


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_without_one_party_the_request_runs_as_usual(start: Start, memory: Path, rank: int) -> None:
    cluster = start()
    expected = cluster.generate(PROMPT, TOKENS)
    for _ in range(2):
        cluster.prepare(length(cluster), TOKENS)
    prepared_requests = sorted(memory.glob("client/prepared_requests/*"))
    (memory / f"p{rank}/preprocessing" / cluster.session.sharing.hex() / prepared_requests[0].name).unlink()
    answer = cluster.generate(PROMPT, TOKENS)  # falls back on the other item
    assert answer.cost.prepared and answer.token_ids == expected.token_ids and not files(memory)
    cluster.prepare(length(cluster), TOKENS)
    PreprocessingStore(memory / f"p{rank}").discard(cluster.session.sharing)
    answer = cluster.generate(PROMPT, TOKENS)
    assert not answer.cost.prepared and not files(memory)
    assert (answer.token_ids, answer.cost.offline) == (expected.token_ids, expected.cost.offline)


def ask(cluster: LocalCluster, request: msg.Request) -> list[Any]:
    """Say the same to all parties, and hear what they say."""
    for link in cluster.session.links:
        link.send_control(msg.encode(request))
    return [msg.decode_reply(link.recv_control()) for link in cluster.session.links]


def test_preprocessing_is_used_up_when_it_is_taken(start: Start) -> None:
    cluster = start()
    prepared_request = cluster.prepare(length(cluster), TOKENS)
    assert ask(cluster, msg.Take(prepared_request.id)) == [msg.Taken("")] * 3
    refused = ask(cluster, msg.Take(prepared_request.id))
    assert refused == [msg.Taken("the preprocessing is missing or has been used")] * 3
    for reply in ask(cluster, Generate(Input([length(cluster)], []), TOKENS, prepared_request.id)):
        assert (reply.kind, reply.message) == (
            "PreprocessingError",
            "the request names preprocessing that is not ready",
        )


def test_what_was_put_back_is_not_taken_again(start: Start, memory: Path) -> None:
    """A copy of a party's file, laid back where it was: the session remembers what it has taken."""
    cluster = start()
    prepared_request = cluster.prepare(length(cluster), TOKENS)
    kept = {path: path.read_bytes() for path in files(memory)}
    assert ask(cluster, msg.Take(prepared_request.id)) == [msg.Taken("")] * 3
    for path, content in kept.items():
        path.write_bytes(content)
    refused = ask(cluster, msg.Take(prepared_request.id))
    assert refused == [msg.Taken("the preprocessing is missing or has been used")] * 3


@pytest.mark.parametrize("change", ["rank", "id"])
def test_what_belongs_to_another_party_or_model_is_refused(start: Start, memory: Path, change: str) -> None:
    """Files that were swapped between parties or ids run nobody's request on the wrong masks."""
    cluster = start()
    one, two = (cluster.prepare(length(cluster), TOKENS) for _ in range(2))
    place = [memory / f"p{r}/preprocessing/{cluster.session.sharing.hex()}" for r in range(3)]
    if change == "rank":
        os.replace(place[1] / one.id.hex(), place[0] / one.id.hex())
        os.replace(place[2] / one.id.hex(), place[1] / one.id.hex())
        os.replace(place[2] / two.id.hex(), place[2] / one.id.hex())
    else:
        for folder in place:
            os.replace(folder / two.id.hex(), folder / one.id.hex())
    replies = ask(cluster, msg.Take(one.id))
    assert all("made for another party or model" in reply.problem for reply in replies), replies


@pytest.mark.parametrize("kind", ["take", "prepare"])
def test_ids_are_remembered_up_to_a_number(kind: str, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a session must not forget is bounded by ending it."""
    monkeypatch.setattr("puma.party.limits.MOST_IDS", 2)
    cluster = start()
    requests = [cluster.prepare(length(cluster), TOKENS) for _ in range(2)]
    if kind == "take":
        assert ask(cluster, msg.Take(b"n" * 16))[0].problem and ask(cluster, msg.Take(b"o" * 16))[0].problem
        replies = ask(cluster, msg.Take(requests[0].id))
    else:
        replies = ask(cluster, msg.Prepare(b"p" * 16, requests[0].request))
    assert {(reply.kind, "at most 2 requests" in reply.message) for reply in replies} == {("AdmissionError", True)}


def test_any_other_message_throws_taken_preprocessing_away(start: Start) -> None:
    cluster = start()
    prepared_request = cluster.prepare(length(cluster), TOKENS)
    ask(cluster, msg.Take(prepared_request.id))
    cluster.session.selftest()
    replies = ask(cluster, Generate(Input([length(cluster)], []), TOKENS, prepared_request.id))
    assert {reply.kind for reply in replies} == {"PreprocessingError"}


def test_preprocessing_is_for_one_request(start: Start) -> None:
    cluster = start()
    prepared_request = cluster.prepare(length(cluster), TOKENS)
    ask(cluster, msg.Take(prepared_request.id))
    for reply in ask(cluster, Generate(Input([length(cluster)], []), TOKENS + 1, prepared_request.id)):
        assert (reply.kind, reply.message) == ("PreprocessingError", "the preprocessing was made for another request")


def test_an_id_prepares_once(start: Start) -> None:
    cluster = start()
    prepared_request = cluster.prepare(length(cluster), TOKENS)
    ask(cluster, msg.Take(prepared_request.id))
    for reply in ask(cluster, msg.Prepare(prepared_request.id, prepared_request.request)):
        assert (reply.kind, reply.message) == ("PreprocessingError", "this preprocessing has been made before")


def test_a_stored_model_is_opened_and_not_sent(start: Any, memory: Path) -> None:
    said: list[str] = []
    first = start(progress=lambda what, done, of: said.append(what))
    assert "sharing the model" in said
    expected = first.model.greedy(first.model.prompt_ids(PROMPT, TOKENS), TOKENS)
    said.clear()
    second = start(progress=lambda what, done, of: said.append(what))
    assert "sharing the model" not in said
    assert second.session.sharing == first.session.sharing and second.session.config == first.session.config
    assert second.generate(PROMPT, TOKENS).token_ids == expected
    (name,) = {path.name for path in memory.glob("p*/models/*")}
    assert not second.session.open("another")
    assert second.session.open(name)


def test_parties_that_hold_different_sharings_are_sent_a_new_one(start: Any, memory: Path) -> None:
    first = start()
    first.prepare(length(first), TOKENS)
    old = first.session.sharing
    (name,) = {path.name for path in memory.glob("p*/models/*")}
    first.session.close()
    shutil.rmtree(memory / "p1/models" / name)
    second = start()
    assert second.session.sharing != old
    assert len(list(memory.glob("p*/preprocessing/*/*"))) == 1  # P1, which could not know, has kept its own
    answer = second.generate(PROMPT, TOKENS)
    assert not answer.cost.prepared
    assert [path.name for path in memory.glob("p*/models/*")] == [name] * 3


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_damaged_store_is_named(start: Any, memory: Path, rank: int) -> None:
    start().session.close()
    (folder,) = (memory / f"p{rank}/models").iterdir()
    path = folder / ("data" if rank else "manifest.json")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"of model .* in {memory}/p{rank} "):
        start()


@pytest.mark.parametrize("rank", [1, 2])
def test_a_full_disk_is_named_and_leaves_nothing(
    start: Any, memory: Path, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fallocate = os.posix_fallocate

    def full(file: int, *span: int) -> None:
        if f"/p{rank}/" in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(28, "No space left on device")
        fallocate(file, *span)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError, match=f"no room for the model .* in {memory}/p{rank} "):
        start()
    monkeypatch.undo()
    assert not any((memory / f"p{rank}/models").iterdir()) and not any((memory / f"p{rank}/uploads").iterdir())
    assert len(start().generate(PROMPT, TOKENS).token_ids) == TOKENS


def test_without_a_store_nothing_is_kept(clear: PlainModel) -> None:
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        with pytest.raises(PreprocessingError, match="no place"):
            cluster.prepare(4, 1)
        assert not cluster.session.open("m") and cluster.session.open("model"), "the model is in memory"


@pytest.mark.processes
def test_what_a_killed_party_had_begun_with_is_lost(memory: Path, clear: PlainModel) -> None:
    ids = clear.prompt_ids(PROMPT, 6)
    with pytest.raises(PeerLost), LocalCluster(clear, store=memory) as cluster:
        cluster.prepare(len(ids), 6)
        assert len(files(memory)) == 4
        stream, pids = cluster.session.continued([ids], 6), cluster.pids
        next(stream)
        assert not files(memory)
        os.kill(pids[1], signal.SIGKILL)
        list(stream)
    assert gone(pids) and not files(memory)
    with LocalCluster(clear, store=memory) as cluster:
        answer = cluster.generate(PROMPT, 6)
    assert answer.token_ids == clear.greedy(ids, 6) and not answer.cost.prepared


def test_a_party_keeps_to_its_folder(memory: Path) -> None:
    memory.chmod(0o755)
    with pytest.raises(StoreError, match="open to other users"):
        Trio(store=memory)
