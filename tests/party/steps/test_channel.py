"""Several clients at once: their requests share steps, each gets what it gets alone, and none is hurt by another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from puma.client.answering.drafted import continued
from puma.client.batch import Batch
from puma.client.connect import ClusterSession
from puma.client.sampling import Sampler, Sampling
from puma.engine.company import Member
from puma.errors import AdmissionError, PeerLost, ProtocolError, PumaError
from puma.party.channel import Channel
from puma.party.limits import Limits
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from puma.wire.steps import Item
from tests.client.drafts.scripted import Scripted
from tests.models import tiny
from tests.party.sessions import Sessions

PROMPTS = [[2, 5, 7], [3], [4, 9, 6, 11, 8], [5, 1, 12], [7, 7], [11, 2, 3, 4]]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    folder = tmp_path_factory.mktemp("parties")
    made = Sessions(folder / "parties", Limits(sessions=8, tokens=400, reveal_logits=True))
    llama = tiny.llama(folder / "llama", num_hidden_layers=1, max_position_embeddings=256)
    made.share(llama, "llama", reveal_logits=True)
    made.share(tiny.bert(folder / "bert", num_hidden_layers=1), "bert", outputs=("hidden", "pooled"))
    made.clear = PlainModel(llama)  # type: ignore[attr-defined]
    yield made
    for each in made.channel:
        each.end(PeerLost("the tests are over"))


def greedy(parties: Sessions, ids: Sequence[int], tokens: int) -> list[int]:
    """What the model says in the clear."""
    return parties.clear.greedy(ids, tokens)  # type: ignore[attr-defined]


class Steps:
    """The steps that P1 takes, by whose requests they are of; `pass_` lets so many through, if they are held."""

    def __init__(self, held: bool) -> None:
        self.taken: list[list[str]] = []
        self._gate = threading.Semaphore(0) if held else None

    def pass_(self, count: int = 1) -> None:
        assert self._gate is not None
        self._gate.release(count)

    def noting(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def taken(number: int, members: Sequence[Member], reads: Sequence[int]) -> Any:
            self.taken.append([member.key.removeprefix("client ") for member in members])
            if self._gate is not None:
                assert self._gate.acquire(timeout=20)
            return step(number, members, reads)

        return taken


@contextmanager
def steps(parties: Sessions, held: bool = False) -> Iterator[Steps]:
    """Meanwhile steps are noted, and wait to be let through if they are `held`."""
    company, made = parties.channel[1]._company, Steps(held)
    before = company.step
    company.step = made.noting(before)  # type: ignore[method-assign]
    try:
        yield made
    finally:
        company.step = before  # type: ignore[method-assign]
        if held:
            made.pass_(1000)


def until(condition: Callable[[], Any], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def ask(parties: Sessions, name: str, prompt: Sequence[int], tokens: int, **how: Any) -> list[int]:
    """One client's answer, in a session of its own."""
    with parties.session(name=name) as session:
        assert session.open("llama")
        return [new for (new,) in session.continued([prompt], tokens, **how)]


def test_clients_share_steps_and_get_their_own(parties: Sessions) -> None:
    """In one go, a word a token, ahead of the reader, by the client's choice, and drawn at a temperature."""
    chosen = {"choose": lambda logits: [int(logits[0].argmax())]}
    hows: list[dict[str, Any]] = [{}, {"paced": True}, {"ahead": 4}, chosen, {"temperature": 0.01}, {}]
    with steps(parties) as seen, ThreadPoolExecutor(len(PROMPTS)) as pool:
        work = [
            pool.submit(ask, parties, f"c{i}", ids, 6, **how)
            for i, (ids, how) in enumerate(zip(PROMPTS, hows, strict=True))
        ]
        found = [each.result(60) for each in work]
    assert len(found[4]) == 6  # drawn: two tokens of a random model may be as likely as each other
    assert [found[i] for i in (0, 1, 2, 3, 5)] == [greedy(parties, PROMPTS[i], 6) for i in (0, 1, 2, 3, 5)]
    assert len(seen.taken) < 6 * 6 and max(map(len, seen.taken)) >= 3
    until(lambda: not any(each.waiting for each in parties.channel))


def test_encodings_of_several_clients_in_one_step(parties: Sessions) -> None:
    clear = PlainModel(parties.folder.parent / "bert")

    def encode(i: int) -> torch.Tensor:
        with parties.session(name=f"c{i}") as session:
            assert session.open("bert")
            return session.encode([PROMPTS[i]], "pooled")[0]

    with steps(parties, held=True) as seen, ThreadPoolExecutor(3) as pool:
        work = [pool.submit(encode, 0)]
        until(lambda: seen.taken)
        work += [pool.submit(encode, i) for i in (2, 3)]
        until(lambda: parties.channel[1].waiting == 3 and sum(map(len, seen.taken)) == 1)
        time.sleep(0.1)
        seen.pass_(3)
        found = [each.result(30) for each in work]
    for i, value in zip((0, 2, 3), found, strict=True):
        (plain,) = Plain(clear.config, clear.plain).encode([PROMPTS[i]], "pooled")
        assert float((value - plain).abs().max()) < 0.05
    assert seen.taken[0] == ["c0"] and sorted(map(len, seen.taken[1:])) in ([2], [1, 1])


def test_a_newcomer_has_its_first_token_within_three_steps(parties: Sessions) -> None:
    with steps(parties, held=True) as seen, ThreadPoolExecutor(5) as pool:
        going = [pool.submit(ask, parties, f"g{i}", PROMPTS[i], 12) for i in range(4)]
        until(lambda: len(seen.taken) == 1 and parties.channel[1].waiting == 4)
        for _ in range(4):
            taken = len(seen.taken)
            seen.pass_()
            until(lambda n=taken: len(seen.taken) > n)
        came = len(seen.taken)
        new = pool.submit(ask, parties, "new", PROMPTS[4], 1)
        until(lambda: parties.channel[1]._lead.ready)  # type: ignore[union-attr]
        seen.pass_(1000)
        assert new.result(30) == greedy(parties, PROMPTS[4], 1)
        assert [each.result(60) for each in going] == [greedy(parties, PROMPTS[i], 12) for i in range(4)]
    first = next(i for i, who in enumerate(seen.taken) if "new" in who)
    assert first - came <= 2, "the step under way, one that had been said, and its own"
    assert all(len(who) >= 4 for who in seen.taken[4:10]), "nobody under way was kept waiting"


@contextmanager
def company(parties: Sessions, tokens: int = 9) -> Iterator[None]:
    """Meanwhile another client generates, which must get its own answer over the same channel."""
    before = parties.channel
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(ask, parties, "bystander", PROMPTS[2], tokens)
        until(lambda: any(each.key == "client bystander" for each in [*before[1]._members.values()]))
        yield
        assert other.result(60) == greedy(parties, PROMPTS[2], tokens)
    assert parties.channel is before and not any(each.over for each in before)
    until(lambda: not any(m.key == "client bystander" for each in before for m in [*each._members.values()]))


class Odd:
    """A party's guest, of whose generations this party hears another number of tokens than the others."""

    def __init__(self, link: Any, kind: type, change: dict[str, Any]) -> None:
        self._link, self._kind, self._change = link, kind, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def recv_control(self) -> bytes:
        request = msg.decode_request(self._link.recv_control())
        return msg.encode(
            msgspec.structs.replace(request, **self._change) if isinstance(request, self._kind) else request
        )


@pytest.mark.parametrize(("odd", "change"), [(0, {"tokens": 4}), (1, {"tokens": 4}), (2, {"temperature": 0.5})])
def test_a_client_that_tells_parties_different_things_harms_itself_alone(
    odd: int, change: dict[str, Any], parties: Sessions
) -> None:
    with (
        company(parties),
        parties.session(
            name="mallory", link=lambda rank, link: Odd(link, msg.Generate, change) if rank == odd else link
        ) as session,
    ):
        assert session.open("llama")
        with pytest.raises(PumaError, match="was asked for something else than"):
            list(session.continued([[1, 5]], 3))
    assert not any(member.key == "client mallory" for each in parties.channel for member in each._members.values())


@pytest.mark.parametrize("paced", [False, True])
def test_a_client_that_is_gone_leaves_the_others(paced: bool, parties: Sessions) -> None:
    with company(parties, 14), parties.session(name="gone") as session:
        assert session.open("llama")
        stream = session.continued([PROMPTS[0]], 30, paced=paced)
        assert next(stream) == greedy(parties, PROMPTS[0], 1)
        for link in session.links:
            link.fail("the client died")
        with suppress(PumaError):
            stream.close()


def test_a_client_that_stalls_keeps_nobody_waiting_and_goes_on_where_it_was(parties: Sessions) -> None:
    with parties.session(name="slow") as session:
        assert session.open("llama")
        with closing(session.continued([PROMPTS[0]], 6, paced=True)) as stream:
            found = [next(stream)[0], next(stream)[0]]
            with company(parties, 5):
                pass
            found += [new for (new,) in stream]
    assert found == greedy(parties, PROMPTS[0], 6)


@pytest.mark.parametrize("ahead", [0, 4])
def test_a_stream_that_is_left_leaves_nothing_behind(ahead: int, parties: Sessions) -> None:
    with company(parties), parties.session(name="leaves") as session:
        assert session.open("llama")
        how: dict[str, Any] = {"ahead": ahead} if ahead else {"paced": True}
        stream = session.continued([PROMPTS[0]], 20, **how)
        found = [next(stream)[0], next(stream)[0]]
        stream.close()
        again = [new for (new,) in session.continued([PROMPTS[1]], 4)]
    assert found == greedy(parties, PROMPTS[0], 2) and again == greedy(parties, PROMPTS[1], 4)


def test_prompts_that_join_and_leave_a_clients_batch(parties: Sessions) -> None:
    with company(parties), parties.session(name="many") as session:
        assert session.open("llama")
        with Batch(session) as batch:
            first = batch.add([PROMPTS[0], PROMPTS[1]], 6)
            got: dict[int, list[int]] = {0: [], 1: []}
            for step in range(4):
                if step == 2:
                    late = batch.add([PROMPTS[3]], 3)
                    batch.drop(first, [0])
                found = batch.step()
                for i, new in found[first].items():
                    got[i] += new
                if step >= 2:
                    got.setdefault(9, []).extend(found[late][0])
    assert got[0] == greedy(parties, PROMPTS[0], 2) and got[1] == greedy(parties, PROMPTS[1], 4)
    assert got[9] == greedy(parties, PROMPTS[3], 2)


def test_drafts_in_company(parties: Sessions) -> None:
    """Beside clients without: each gets its own, and a step with drafts counts by what it reads."""
    answers = {tuple(ids): greedy(parties, ids, 16) for ids in PROMPTS[:2]}
    draft = Scripted(answers, 3, lambda at, place: (at + place) % 3 == 2, 28)
    with company(parties, 14), parties.session(name="drafts") as session:
        assert session.open("llama")
        steps = list(continued(session, PROMPTS[:2], 12, draft, {}, Sampling()))
        cost = session.cost
    found = [[token for new in mine for token in new] for mine in zip(*steps, strict=True)]
    assert found == [greedy(parties, ids, 12) for ids in PROMPTS[:2]]
    assert cost is not None and cost.drafts is not None and cost.drafts.accepted > 4 and len(steps) < 12
    until(lambda: not any(each.waiting for each in parties.channel))


def test_drafts_count_against_the_tokens_of_a_key(parties: Sessions) -> None:
    draft = Scripted({tuple(PROMPTS[0]): [9] * 40}, 8, lambda at, place: True, 28)
    few = Limits(sessions=8, tokens=400, reveal_logits=True, tokens_by_key=40)
    with parties.limited(few), parties.session(name="guesses") as session:
        assert session.open("llama")
        with pytest.raises(AdmissionError, match="has had its 40"):
            list(continued(session, [PROMPTS[0]], 20, draft, {}, Sampling()))


class _Again:
    """A party's guest who takes back what a step gave: the first result, or each after it."""

    def __init__(self, link: Any, first: int) -> None:
        self._link, self._left = link, first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def recv_control(self) -> bytes:
        word = msg.decode_request(self._link.recv_control())
        if isinstance(word, msg.Pace) and word.kept:
            self._left -= 1
            word = msgspec.structs.replace(word, kept=[[]] if self._left < 0 else word.kept)
        return msg.encode(word)


class _Begins(Batch):
    """Fed tokens come with one more, with which an answer would begin."""

    fed = False

    def _fed(self, staying: Any) -> Any:
        found = super()._fed(staying)
        self.fed = found is not None
        return found and (found[0], self._shared([[5], [5]]))

    def _input(self, lengths: Any, share: Any, padded: bool = False) -> msg.Input:
        return msgspec.structs.replace(super()._input(lengths, share, padded), begun=int(self.fed))


def _takes_back(session: ClusterSession) -> None:
    list(continued(session, [[3]], 4, Scripted({(3,): [9] * 40}, 0, lambda at, place: True, 28), {}, Sampling()))


def _begins(session: ClusterSession) -> None:
    with _Begins(session, reveal=True) as batch:
        batch.add([[3]], 3, choose=Sampler(Sampling()))
        batch.step()
        batch.step()


@pytest.mark.parametrize(("does", "again"), [(_takes_back, 0), (_begins, 99)])
def test_what_no_step_can_take_is_refused_before_one_does(
    does: Callable[[ClusterSession], None], again: int, parties: Sessions
) -> None:
    """A prompt of which nothing is left, and tokens that are none: whoever says so harms itself alone."""
    with company(parties), parties.session(name="mallory", link=lambda rank, link: _Again(link, again)) as session:
        assert session.open("llama")
        with pytest.raises(ProtocolError, match=r"taken back|belongs to a prompt"):
            does(session)


def test_who_lets_nothing_count_has_tokens_like_others(parties: Sessions) -> None:
    """23 tokens for prompt and answer, and one for each step that is asked for again."""
    few = Limits(sessions=8, tokens=400, reveal_logits=True, tokens_by_key=30)
    with parties.limited(few), parties.session(name="again", link=lambda rank, link: _Again(link, 1)) as session:
        assert session.open("llama")
        draft = Scripted({tuple(PROMPTS[0]): [9] * 40}, 0, lambda at, place: True, 28)
        with pytest.raises(AdmissionError, match="has had its 30"):
            list(continued(session, [PROMPTS[0]], 20, draft, {}, Sampling()))


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_link_ends_the_channel_by_name_and_the_next_has_fresh_keys(lost: int, parties: Sessions) -> None:
    before, errors = parties.channel, list[PumaError]()
    keys = [each.party._keys for each in before]

    def client(session: ClusterSession) -> None:
        try:
            list(session.continued([PROMPTS[0]], 200))
        except PumaError as error:
            errors.append(error)

    with parties.session(name="one") as one, parties.session(name="two") as two:
        assert one.open("llama") and two.open("llama")
        threads = [threading.Thread(target=client, args=(each,)) for each in (one, two)]
        for thread in threads:
            thread.start()
        until(lambda: before[1].waiting == 2 and before[1]._number > 3)
        _cut(before[lost])
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
    assert len(errors) == 2 and all(isinstance(error, ProtocolError) for error in errors)
    assert all(isinstance(each.over, PumaError) for each in before)
    assert ask(parties, "three", PROMPTS[1], 3) == greedy(parties, PROMPTS[1], 3)
    after = [each.party._keys for each in parties.channel]
    assert parties.channel is not before
    assert not {k.secret for each in keys for k in each.values()} & {k.secret for each in after for k in each.values()}


def _cut(channel: Channel) -> None:
    for link in channel._links.values():
        link.fail("the process died")


def test_who_is_over_already_does_not_come_again(parties: Sessions) -> None:
    """The leader may hear first that a client wants no more, and say so before this party has heard its client."""
    over: Any = SimpleNamespace(item=Item(bytes(16), 7), closed=True)
    for each in parties.channel:
        each.allow(over)
        assert over.item not in each._members
