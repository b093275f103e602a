"""Three real processes: what they answer, that they end, and that a lost one is named within seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from puma import LocalCluster
from puma.errors import InputError, PeerLost, ProtocolError, UsageError
from puma.local.cluster import Trio
from puma.reference.plain_model import PlainModel
from tests.models import tiny
from tests.watching import started
from tests.watching.started import alive, gone

pytestmark = pytest.mark.processes
SECONDS = 10.0


def test_cluster_from_start_to_end(checkpoints: dict[str, Path]) -> None:
    said: list[tuple[str, int, int]] = []
    with LocalCluster(checkpoints["llama"], lambda *progress: said.append(progress)) as cluster:
        pids = cluster.pids
        assert len(set(pids)) == 3 and all(map(alive, pids)) and os.getpid() not in pids
        first = cluster.generate("the cat", 2)
        again = cluster.generate("the cat", 2)
        assert len(first.token_ids) == 2
        assert cluster.decode(first.token_ids) == first.text
        assert (first.cost.rounds, first.cost.bytes()) == (again.cost.rounds, again.cost.bytes())
    assert gone(pids, 0.0)
    whats = list(dict.fromkeys(what for what, _, _ in said))
    assert whats[-1] == "sharing the model" and "starting the parties" in whats
    before = {"checking the weights", "proving bounds", "calibrating the model on texts"}  # unless a plan lies there
    assert set(whats[: whats.index("starting the parties")]) <= before
    with pytest.raises(ProtocolError, match="has ended"):
        cluster.generate("the cat", 2)


def test_every_link_takes_the_route() -> None:
    asked: list[tuple[str, str]] = []

    def route(dialer: str, listener: str, port: int) -> int:
        asked.append((dialer, listener))
        return port

    with Trio(route=route) as trio:
        trio.session.selftest()
    assert sorted(asked) == [("P1", "P0"), ("P2", "P0"), ("P2", "P1"), *(("client", f"P{rank}") for rank in range(3))]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_secure_tokens_are_the_plain_ones(name: str, checkpoints: dict[str, Path], processes: Trio) -> None:
    clear = PlainModel(checkpoints[name])
    cluster = LocalCluster(clear, trio=processes)
    answer = cluster.generate("the cat sat on the", 4)
    ids = clear.prompt_ids("the cat sat on the", 4)
    assert answer.token_ids == clear.greedy(ids, 4)
    assert answer.cost.prefill <= answer.cost.seconds
    assert all(mib > 1 for mib in answer.cost.peak_rss_mib)


@pytest.mark.parametrize("name", ["bert", "classifier"])
def test_secure_encodings_are_near_the_plain_ones(name: str, checkpoints: dict[str, Path], processes: Trio) -> None:
    clear = PlainModel(checkpoints[name])
    cluster = LocalCluster(clear, trio=processes)
    for text in ("the cat sat", "a dog"):
        plain = clear.encoded(clear.sentence_ids(text))
        assert_close(cluster.encode(text).values, plain, atol=0.01, rtol=0)
        assert name == "classifier" or abs(float(torch.linalg.vector_norm(plain)) - 1) < 1e-6


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_several_prompts_in_one_request(name: str, checkpoints: dict[str, Path], processes: Trio) -> None:
    clear = PlainModel(checkpoints[name])
    cluster = LocalCluster(clear, trio=processes)
    prompts = ["the cat sat on the", "a dog", "they went home one day and saw the big mat"]
    answers = cluster.generate(prompts, 4)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.token_ids == clear.greedy(clear.prompt_ids(prompt, 4), 4)
        assert answer.text == cluster.decode(answer.token_ids)
    assert cluster.generate(prompts[:1], 1)[0].token_ids == answers[0].token_ids[:1]


@pytest.mark.parametrize("name", ["bert", "classifier"])
def test_several_texts_in_one_request(name: str, checkpoints: dict[str, Path], processes: Trio) -> None:
    clear = PlainModel(checkpoints[name])
    cluster = LocalCluster(clear, trio=processes)
    texts = ["the cat sat on the mat", "a dog", "it was red"]
    found = cluster.encode(texts)
    for text, encoding in zip(texts, found, strict=True):
        assert_close(encoding.values, clear.encoded(clear.sentence_ids(text)), atol=0.01, rtol=0)
    assert found[0].cost == found[1].cost == cluster.cost


def test_a_stream_left_early_does_not_disturb_the_next(checkpoints: dict[str, Path], processes: Trio) -> None:
    cluster = LocalCluster(checkpoints["llama"], trio=processes)
    expected = cluster.generate("a dog ran", 3).token_ids
    left = cluster.stream("the cat", 4)
    next(left)
    assert cluster.generate("a dog ran", 3).token_ids == expected
    with pytest.raises(UsageError, match="a new request"):
        next(left)


def test_bad_requests_leave_the_session_usable(checkpoints: dict[str, Path], processes: Trio) -> None:
    cluster = LocalCluster(checkpoints["llama"], trio=processes)
    for prompt, tokens in (("", 1), ("the cat", 0), ("the cat", 40), ("the " * 40, 1)):
        with pytest.raises(UsageError):
            cluster.generate(prompt, tokens)
    with pytest.raises(UsageError, match="is no encoder"):
        cluster.encode("the cat")
    for prompts in ([], [[]], [[28]], [[-1]], [[5], []], [[5], [28]], [[5] * 40, [5]], [[5]] * 257):
        with pytest.raises(InputError):
            list(cluster.session.continued(prompts, 1))
    assert len(cluster.generate("the cat", 1).token_ids) == 1


@pytest.mark.parametrize("rank", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_party_is_named_within_seconds(rank: int, tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path, max_position_embeddings=512)
    with pytest.raises(PeerLost, match=f"P{rank}") as lost, LocalCluster(folder) as cluster:
        pids = cluster.pids
        stream = cluster.stream("the cat", 400)
        next(stream)
        os.kill(pids[rank], signal.SIGKILL)
        killed = time.monotonic()
        for _ in stream:
            pass
    assert time.monotonic() - killed < SECONDS
    assert lost.value.hint
    assert gone(pids, 0.0)


@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_no_process_stays_when_the_launcher_ends(sent: signal.Signals, tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path, max_position_embeddings=512)
    command = [sys.executable, "-m", "puma.cli.app", "generate", str(folder), "the cat", "--tokens", "400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None and launcher.stderr is not None
        assert launcher.stdout.read(8)  # the first words: the parties are at work
        parties = started.parties(launcher.pid)
        assert len(parties) == 3
        launcher.send_signal(sent)
        assert gone(parties)
        code = launcher.wait(30)
        said = launcher.stderr.read()
    if sent == signal.SIGINT:
        assert code == 130
        *before, last = filter(None, said.splitlines())  # what takes long is told on a slow machine
        assert last == "interrupted" and all(line.endswith(" ...") for line in before)
