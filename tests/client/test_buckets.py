"""Prompts of secret length are continued as they would be alone, and only the bucket leaves the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from puma import LocalCluster
from puma.client.lengths import check_approximation, secret_length
from puma.engine.admission import OWNER, Allowed, admit
from puma.engine.dry_run import dry_run
from puma.engine.lookahead import Ahead
from puma.errors import AdmissionError, InputError, RangeError, UsageError
from puma.models import Cache
from puma.mpc.seeded import Seeded
from puma.net.frame import Kind
from puma.net.memory import MemoryLink
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Generate, Input
from tests.models import tiny, zoo
from tests.models.plain import Beside, one_hot, open_model, usual
from tests.threads import Threads

PROMPTS = [[2, 5, 7], [3], [4, 9, 6, 11, 8, 1, 2, 7]]
BUCKET = 16


@pytest.mark.parametrize("name", ["mistral", "qwen3", "gemma2", "gemma3", "neox", "llama-yarn", "phi3"])
def test_padding_in_front_changes_nothing_on_tensors(name: str, tmp_path: Path) -> None:
    """Whatever the window: distances between tokens are what they were. Short prompts join, and some leave."""
    checkpoint, model = open_model(zoo.write(tmp_path, name))
    beside = Beside(model, checkpoint.config, PROMPTS)
    cache = beside.read([0, 1], 6)
    beside.go_on(cache, [0, 1])
    cache.join(beside.read([2], 10))
    beside.go_on(cache, [0, 1, 2])
    cache.keep([2, 0])
    beside.go_on(cache, [2, 0])
    cache.join(beside.read([1]))
    beside.go_on(cache, [2, 0, 1])
    cache.keep([0, 1])
    public = beside.read([1])
    public.join(cache)
    beside.go_on(public, [1, 2, 0])


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("buckets"), num_hidden_layers=2))


@pytest.fixture(scope="module")
def trio(clear: PlainModel) -> Iterator[Threads]:
    with Threads() as found:
        yield found


@pytest.fixture(scope="module")
def cluster(clear: PlainModel, trio: Threads) -> LocalCluster:
    return LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]


def test_tokens_are_those_of_the_plain_model(cluster: LocalCluster, clear: PlainModel) -> None:
    """Alone and side by side in one bucket, and whoever chooses them."""
    expected = [clear.greedy(ids, 5) for ids in PROMPTS]
    for ids, wanted in zip(PROMPTS, expected, strict=True):
        assert list(cluster.stream_ids(ids, 5, lengths="secret")) == wanted
    together = cluster.session.continued(PROMPTS, 5, lengths="secret")
    assert [list(new) for new in zip(*together, strict=True)] == expected
    assert list(cluster.stream_ids(PROMPTS[2], 5, lengths="secret", padded=8, top_k=1, temperature=1.0)) == expected[2]
    answer = cluster.generate("the cat sat", 3, lengths="secret", padded=9)
    assert answer.token_ids == cluster.generate("the cat sat", 3).token_ids


def test_parties_see_the_same_of_all_prompts_in_a_bucket(
    cluster: LocalCluster, trio: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame of every party and of the client has the size that it had for a prompt of another length."""
    sent: dict[tuple[str, str, Kind], list[int]] = {}
    real = MemoryLink._transmit

    def spied(link: MemoryLink, kind: Kind, sequence: int, pieces: list[memoryview], size: int) -> None:
        sent.setdefault((link.name, link.peer, kind), []).append(size)
        real(link, kind, sequence, pieces, size)

    monkeypatch.setattr(MemoryLink, "_transmit", spied)

    def sizes(ids: list[int], lengths: str) -> object:
        sent.clear()
        list(cluster.stream_ids(ids, 4, lengths=lengths))
        spent = [{name: x for name, x in entry.items() if name != "seconds"} for entry in cluster.cost.breakdown]
        # The report's own size follows the receipt in it, which counts all frames of the session so far.
        reports = {("P0", "client", Kind.CONTROL), ("P1", "client", Kind.CONTROL), ("P2", "client", Kind.CONTROL)}
        return {link: frames[:-1] if link in reports else list(frames) for link, frames in sent.items()}, spent

    first, second, full = (sizes(ids, "secret") for ids in (PROMPTS[1], PROMPTS[2], [5] * BUCKET))
    assert first == second == full and len(sent) >= 9
    assert sizes(PROMPTS[1], "public") != sizes(PROMPTS[2], "public"), "this test sees lengths where they are told"


def test_a_dry_run_counts_the_bucket(cluster: LocalCluster, clear: PlainModel) -> None:
    list(cluster.session.continued(PROMPTS, 3, lengths="secret"))
    cost = cluster.cost
    counted = dry_run(clear.config, Generate(Input([BUCKET] * len(PROMPTS), [], padded=True), 3))
    assert cost.rounds == sum(entry.rounds for entry in counted[1])
    assert cost.online - cost.client == sum(entry.online for party in counted for entry in party)
    assert cost.total - cost.client == sum(entry.online + entry.offline for party in counted for entry in party)


def test_the_dealer_looks_ahead_past_padding(clear: PlainModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It foresees steps without the flags, whose values no mask depends on."""
    looked: list[int] = []
    real = Ahead._look

    def spied(ahead: Ahead, lookahead: Any, step: int, cache: Cache, requests: Any) -> None:
        looked.append(step)
        real(ahead, lookahead, step, cache, requests)

    monkeypatch.setattr(Ahead, "_look", spied)
    monkeypatch.setattr(Seeded, "keep", property(lambda _: False, lambda *_: None), raising=False)
    with Threads() as threads:
        cluster = LocalCluster(clear, trio=threads)  # type: ignore[arg-type]
        assert list(cluster.stream_ids(PROMPTS[2], 6, lengths="secret")) == clear.greedy(PROMPTS[2], 6)
    assert looked


def test_a_prepared_request_is_for_a_bucket(clear: PlainModel, memory: Path) -> None:
    """One that was prepared for prompts of secret length serves these alone, whatever their lengths."""
    with Threads(memory / "store") as threads:
        cluster = LocalCluster(clear, trio=threads, store=memory / "store")  # type: ignore[arg-type]
        cluster.session.prepare(Generate(Input([BUCKET], [], padded=True), 3))
        list(cluster.stream_ids([5] * BUCKET, 3))
        assert not cluster.cost.prepared
        assert list(cluster.stream_ids(PROMPTS[2], 3, lengths="secret")) == clear.greedy(PROMPTS[2], 3)
        assert cluster.cost.prepared
        assert list(cluster.stream_ids(PROMPTS[2], 3, lengths="secret")) == clear.greedy(PROMPTS[2], 3)
        assert not cluster.cost.prepared


def test_a_bucket_leaves_room_for_the_answer(clear: PlainModel) -> None:
    config = clear.config
    told = {n: secret_length(config, [[1] * n], (), 0, 8) for n in range(1, config.context - 6)}
    assert sorted(set(told.values())) == [16, config.context - 7]
    with pytest.raises(InputError, match="ask for fewer"):
        secret_length(config, [[1] * 20], (), 0, 30)


def test_what_cannot_be_secret(cluster: LocalCluster, clear: PlainModel, tmp_path: Path) -> None:
    for name in ("gpt2-hub", "opt", "t5"):
        other = PlainModel(zoo.write(tmp_path / name, name))
        with pytest.raises(UsageError, match="only decoders with rotary positions"):
            other.check_padding(generates=True)
        with pytest.raises(UsageError, match="secret length"):
            admit(other.config, "spline", Generate(Input([16], [], padded=True), 2), OWNER)
    with pytest.raises(UsageError, match="only encoders"):
        cluster.session.encode([PROMPTS[0]], "hidden", lengths="secret")
    with pytest.raises(UsageError, match="lengths cannot be hidden"):
        cluster.generate("the cat", 2, lengths="hidden")
    for width in (2, 32):
        with pytest.raises(InputError, match="cannot be padded"):
            cluster.stream_ids(PROMPTS[0], 5, lengths="secret", padded=width)
    with pytest.raises(UsageError, match="mpcformer"):
        check_approximation("mpcformer")
    job = Generate(Input([16], [], padded=True), 2)
    admit(clear.config, "spline", job, OWNER)
    named = msgspec.structs.replace(job.input, approximation="mpcformer")
    with pytest.raises(UsageError, match="mpcformer"):
        admit(clear.config, "mpcformer", msgspec.structs.replace(job, input=named), OWNER)
    beams = msgspec.structs.replace(job, beams=2, reveal=True, paced=True)
    with pytest.raises(UsageError, match="secret length"):
        admit(clear.config, "spline", beams, OWNER)
    with pytest.raises(AdmissionError, match="takes 18 tokens"):
        admit(clear.config, "spline", job, Allowed(OWNER.outputs, True, 17))


def test_scores_too_wide_to_hide_are_refused(
    cluster: LocalCluster, clear: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = dict(clear.params)
    params["model.layers.0.self_attn.q_proj.weight"] = 100 * torch.ones(24, 24)
    monkeypatch.setattr(clear, "params", params)
    # By the usual formats: a plan's reaches leave room for what is hidden.
    monkeypatch.setattr(clear, "config", usual(clear.config))
    with pytest.raises(RangeError, match="too wide for hiding some in secret"):
        cluster.stream_ids(PROMPTS[0], 2, lengths="secret")


def test_what_a_cache_cannot_hide(tmp_path: Path) -> None:
    checkpoint, model = open_model(zoo.write(tmp_path, "mistral"))
    cache, flags = Cache(checkpoint.config.layers, [5]), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    cache.hide(flags)
    model(one_hot([0, 0, *PROMPTS[0]], zoo.VOCABULARY), cache)
    with pytest.raises(UsageError, match="have been read"):
        cache.hide(flags)
    with pytest.raises(UsageError, match="cannot branch"):
        cache.branch(torch.zeros(2, 2))
