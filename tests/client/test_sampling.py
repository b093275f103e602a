"""How tokens are chosen: by the client from logits that the owner reveals, by the parties with noise, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from puma.client.sampling import Sampler, Sampling, kept
from puma.client.session import Session
from puma.engine.admission import OWNER, admit
from puma.engine.dry_run import dry_run
from puma.errors import PeerLost, PolicyError, PreprocessingError, ProtocolError, UsageError
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from puma.wire.inputs import upload_bytes
from tests.models import tiny
from tests.threads import Threads

PROMPT = "the cat sat on"


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("sampling"), num_hidden_layers=1))


@pytest.fixture(scope="module")
def cluster(clear: PlainModel) -> Iterator[LocalCluster]:
    """Logits stay secret; do not break it."""
    with Threads() as trio:
        yield LocalCluster(clear, trio=trio)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def revealing(clear: PlainModel) -> Iterator[LocalCluster]:
    """Clients may see logits; do not break it."""
    with Threads() as trio:
        yield LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]


# -- the client's choice --------------------------------------------------------------------------------------------


def test_samples_have_the_asked_distribution() -> None:
    """Chi squared, 7 degrees of freedom, 99.99 %."""
    logits = torch.tensor([0.0, 1.0, -0.5, 2.0, 0.3, -1.0, 1.5, 0.7], dtype=torch.float64)
    for how in (Sampling(1.0), Sampling(0.5), Sampling(1.0, top_k=3), Sampling(2.0, top_p=0.7)):
        counts = torch.bincount(torch.tensor(Sampler(how)(logits.expand(4000, 8))), minlength=8).double()
        order = logits.argsort(descending=True)
        chances = kept(torch.softmax(logits[order] / how.temperature, -1), how.top_k, how.top_p)
        expected = torch.zeros(8, dtype=torch.float64)
        expected[order] = 4000 * chances / chances.sum()
        live = expected > 0
        assert not counts[~live].any()
        assert float(((counts - expected)[live] ** 2 / expected[live]).sum()) < 29.9


def test_what_is_kept() -> None:
    chances = torch.tensor([0.5, 0.25, 0.15, 0.1])
    assert kept(chances, 0, 1.0).tolist() == chances.tolist()
    assert (kept(chances, 2, 1.0) > 0).tolist() == [True, True, False, False]
    assert (kept(chances, 0, 0.5) > 0).tolist() == [True, False, False, False]
    assert (kept(chances, 0, 0.51) > 0).tolist() == [True, True, False, False]
    assert (kept(chances, 2, 0.9) > 0).tolist() == [True, True, False, False]  # top_p of what top_k leaves
    assert (kept(chances, 9, 1e-9) > 0).tolist() == [True, False, False, False]


def test_seeds_repeat_and_fresh_numbers_do_not() -> None:
    flat = torch.zeros(20, 1000, dtype=torch.float64)
    same = [Sampler(Sampling(1.0, seed=7))(flat) for _ in range(2)]
    assert same[0] == same[1] != Sampler(Sampling(1.0, seed=8))(flat)
    assert Sampler(Sampling(1.0))(flat) != Sampler(Sampling(1.0))(flat)


def test_options_that_are_missing() -> None:
    assert Sampling.of() == Sampling() and Sampling.of().greedy
    assert Sampling.of(top_p=0.5) == Sampling(1.0, 0, 0.5)
    assert Sampling.of(temperature=0.0, seed=3).greedy


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"temperature": 1e-9}, {"temperature": 1e9}, {"top_k": -1}])
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Sampling.of(**wrong)
    for top_p in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="top_p"):
            Sampling.of(top_p=top_p)


# -- from revealed logits -------------------------------------------------------------------------------------------


def test_logits_reach_the_client_and_its_choice_the_parties(revealing: LocalCluster, clear: PlainModel) -> None:
    assert revealing.generate(PROMPT, 5, top_k=1).token_ids == clear.greedy(clear.prompt_ids(PROMPT, 5), 5)
    prompts = [clear.prompt_ids(p, 3) for p in (PROMPT, "a dog")]
    seen: list[torch.Tensor] = []

    def choose(logits: torch.Tensor) -> list[int]:
        seen.append(logits)
        return [7, 9]

    assert list(revealing.session.continued(prompts, 3, choose=choose)) == [[7, 9]] * 3
    for row, (ids, chosen) in enumerate(zip(prompts, (7, 9))):
        for step, logits in enumerate(seen):
            assert int(logits[row].argmax()) == clear.greedy([*ids, *[chosen] * step], 1)[0]
    first, next_ones = (msg.Input(lengths, []) for lengths in ([len(ids) for ids in prompts], [1, 1]))
    expected = upload_bytes(clear.config, first) + 2 * upload_bytes(clear.config, next_ones)
    assert revealing.cost.client == expected


def test_what_the_revealing_costs_is_known_beforehand(revealing: LocalCluster, clear: PlainModel) -> None:
    ids = clear.prompt_ids(PROMPT, 3)
    list(revealing.session.continued([ids], 3, choose=lambda logits: [1]))
    job = msg.Generate(msg.Input([len(ids)], []), 3, reveal=True, paced=True)
    dry = dry_run(clear.config, job)
    assert revealing.cost.rounds == max(sum(s.rounds for s in spent) for spent in dry)
    sent = sum(s.online + s.offline for spent in dry for s in spent)
    assert revealing.cost.total == sent + revealing.cost.client


def test_a_seed_makes_answers_repeat(revealing: LocalCluster) -> None:
    one, again, other = (revealing.generate(PROMPT, 6, temperature=1.5, seed=s).token_ids for s in (1, 1, 2))
    assert one == again != other


# -- the policy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{"top_k": 3}, {"top_p": 0.5}, {"seed": 1}])
def test_what_needs_logits_is_refused_without_them(asked: dict[str, Any], cluster: LocalCluster) -> None:
    with pytest.raises(PolicyError, match=next(iter(asked))) as refused:
        cluster.generate(PROMPT, 2, **asked)
    assert "reveal_logits" in refused.value.hint
    with pytest.raises(PolicyError):
        next(cluster.session.continued([[5]], 1, choose=lambda logits: [1]))
    assert len(cluster.generate(PROMPT, 1).token_ids) == 1  # the session goes on


@pytest.mark.parametrize("strict", [0, 1, 2])
def test_every_party_refuses_by_itself(strict: int, clear: PlainModel) -> None:
    """A client that asks all the same: one party alone that holds the policy is enough."""
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        trio.servers[strict]._reveals = False
        with pytest.raises((PolicyError, PeerLost), match="does not let clients see logits"):  # or told by another
            cluster.generate(PROMPT, 2, seed=1)


def test_the_policy_is_stored_with_the_model(clear: PlainModel, memory: Path) -> None:
    for reveals in (True, True, False):
        with Threads(memory) as trio:
            cluster = LocalCluster(clear, trio=trio, reveal_logits=reveals)  # type: ignore[arg-type]
            assert cluster.session.reveals is reveals
            sharing = cluster.session.sharing
            assert [server._reveals for server in trio.servers] == [reveals] * 3
        with Threads(memory) as trio:
            cluster = LocalCluster(clear, trio=trio, reveal_logits=reveals)  # type: ignore[arg-type]
            assert cluster.session.sharing == sharing and cluster.session.reveals is reveals


# -- by the parties -------------------------------------------------------------------------------------------------


def test_the_parties_sample_without_logits(cluster: LocalCluster, clear: PlainModel) -> None:
    ids = clear.prompt_ids(PROMPT, 6)
    rows = list(cluster.session.continued([ids] * 12, 6, temperature=2.0))
    answers = {tuple(row) for row in zip(*rows)}
    assert len(answers) > 6


def test_sampling_costs_two_rounds_a_token(cluster: LocalCluster) -> None:
    cluster.generate(PROMPT, 3)
    greedy = cluster.cost
    cluster.generate(PROMPT, 3, temperature=1.0)
    assert cluster.cost.rounds == greedy.rounds + 3 * 2 and cluster.cost.offline > greedy.offline


def test_prepared_samples_differ(clear: PlainModel, memory: Path) -> None:
    """Noise can be made ahead; in the run itself it is fresh, and both evaluators have the same."""
    with Threads(memory) as trio:
        cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        ids, found = clear.prompt_ids(PROMPT, 6), set()
        for _ in range(4):
            cluster.session.prepare(msg.Generate(msg.Input([len(ids)], []), 6, temperature=2.0))
            found.add(tuple(token for (token,) in cluster.session.continued([ids], 6, temperature=2.0)))
            assert cluster.cost.prepared is not None
        assert len(found) > 1


# -- step by step ---------------------------------------------------------------------------------------------------


def test_a_paced_request_ends_where_the_client_says(cluster: LocalCluster, clear: PlainModel) -> None:
    ids = clear.prompt_ids(PROMPT, 6)
    whole = list(cluster.session.continued([ids], 6))
    rounds = cluster.cost.rounds
    assert list(cluster.session.continued([ids], 6, paced=True)) == whole and cluster.cost.rounds == rounds
    steps = cluster.session.continued([ids], 6, paced=True)
    assert [next(steps), next(steps)] == whole[:2]
    steps.close()  # type: ignore[attr-defined]
    assert cluster.cost.rounds < rounds
    left = cluster.session.continued([ids], 6, paced=True)
    next(left)
    assert list(cluster.session.continued([ids], 6)) == whole  # what was left is cleared away
    with pytest.raises(UsageError, match="a new request"):
        next(left)


def test_a_session_may_end_between_two_steps(clear: PlainModel) -> None:
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        next(cluster.session.continued([[5, 6]], 6, paced=True))


def tampered(session: Session, change: Any) -> None:
    """From now on the client's control messages are changed on their way."""
    for link in session.links:
        send = link.send_control
        link.send_control = lambda payload, send=send: send(msg.encode(change(msg.decode_request(payload))))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: msg.Quit() if isinstance(m, msg.Pace) else m, "came between two steps"),
        (lambda m: msg.Pace(True) if isinstance(m, msg.Pace) else m, "chose no next tokens"),
        (
            lambda m: msg.Pace(True, msgspec.structs.replace(m.input, lengths=[2])) if isinstance(m, msg.Pace) else m,
            "chose no next tokens",
        ),
    ],
)
def test_words_between_steps_that_make_no_sense(change: Any, says: str, clear: PlainModel) -> None:
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        tampered(cluster.session, change)
        with pytest.raises(ProtocolError, match=says):
            list(cluster.session.continued([[5, 6]], 3, choose=lambda logits: [1]))


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({"temperature": 1e-3}, "temperature 0.001"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"temperature": -1.0}, "temperature -1"),
        ({"reveal": True}, "step by step"),
        ({"reveal": True, "paced": True, "temperature": 1.0}, "without noise"),
        ({"paced": True, "preprocessing": b"x"}, "in one go"),
    ],
)
def test_jobs_that_contradict_themselves(job: dict[str, Any], says: str, clear: PlainModel) -> None:
    with Threads() as trio:
        LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        engine = trio.servers[1].engine
        assert engine is not None
        with pytest.raises(UsageError, match=says):
            admit(engine.config, "spline", msg.Generate(msg.Input([2], []), 2, **job), OWNER)


def test_paced_requests_cannot_be_prepared(clear: PlainModel, memory: Path) -> None:
    with Threads(memory) as trio:
        cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        with pytest.raises(PreprocessingError, match="cannot be prepared"):
            cluster.session.prepare(msg.Generate(msg.Input([2], []), 2, paced=True))
