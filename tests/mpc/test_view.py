"""What a party sees tells it nothing: every word it receives is padded by a key it lacks, and no pad serves twice."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import puma
from puma.mpc import arithmetic
from puma.mpc.arithmetic import _masked, deal
from puma.mpc.party import DEALER, FIRST, SECOND, Party, Piece, Protocol
from puma.mpc.share import Additive, Share
from puma.nn import functional as F
from tests.case import Case
from tests.cases import CASES, MPC, coins, sample
from tests.trio import counted, given, given_additive, given_masked, joined, parties, trio
from tests.watch import Draw, Watched, assert_hidden, heard, once, run


def speaks(case: Case, rank: int) -> bool:
    """Whether an evaluator hears anything in this case, by its declared cost or else by its dry run."""
    cost = case.cost(Party(DEALER)) or counted(case.run)
    return cost.online > 0 or (rank == SECOND and cost.offline > 0)


HIDDEN = [case for case in CASES if case.function is not arithmetic.reveal]


@pytest.mark.parametrize("case", HIDDEN, ids=lambda case: case.name)
def test_all_that_evaluators_receive_is_padded(case: Case) -> None:
    """By a key that each lacks, with at least as many fresh bits as it hears; the dealer hears nothing."""
    members, _, noted = once(case)
    drawn = {key: 16 * sum(d.blocks for d in ds) for t in noted.values() for key, ds in intervals(t).items()}
    assert heard(members, DEALER) == []
    for rank in (FIRST, SECOND):
        before = heard(members, rank)
        assert bool(before) == speaks(case, rank)
        lacking = {s._key for (evaluator, _), s in members[DEALER]._streams.items() if evaluator != rank}
        assert sum(piece.payload.size for piece in before) <= sum(drawn.get(key, 0) for key in lacking)
        assert_hidden(case.run, rank, before)


# -- the check itself must fail where it should ---------------------------------------------------------------------


def unpadded(z: Additive) -> Protocol[Any]:
    """An opening without pads, as in a known mistake: the evaluators swap their bare parts."""
    if z.party.is_dealer:
        yield [Piece(None, z.bits)]
        return
    yield [Piece(z.part, z.bits)]


def half_padded(z: Additive) -> Protocol[Any]:
    """The pad covers the low byte only."""
    pads = z.party.own_words("mask", tuple(z.shape))
    if z.party.is_dealer:
        yield [Piece(None, z.bits)]
        return
    yield [Piece(z.part + (pads & 255), z.bits)]  # type: ignore[operator]


def one_bare_word(z: Additive) -> Protocol[Any]:
    """A small unpadded message travels with a padded one."""
    message, _ = _masked(z)
    bare = given_masked(z.party, coins(64)).word
    yield [*message, Piece(None if z.party.is_dealer else bare, 1)]


def bare_correction(party: Party) -> torch.Tensor:
    """The dealer sends a value without the half that P1 holds."""
    value = coins(64).to(torch.int64)
    if party.is_dealer:
        party.correction(arithmetic.kernels.pack(value, 24), 64 * 3)
    return value if party.rank == FIRST else torch.zeros(64) if party.is_dealer else party.correction(None, 64 * 3)  # type: ignore[return-value]


@pytest.mark.parametrize("rank", [FIRST, SECOND])
@pytest.mark.parametrize("broken", [unpadded, half_padded])
def test_missing_pads_are_noticed(broken: Any, rank: int) -> None:
    def swap(party: Party) -> None:
        party.run(broken(given_additive(party, sample(8, 8), 32, 12, dealt=False)))

    with pytest.raises(AssertionError, match="bits changed"):
        assert_hidden(swap, rank)


@pytest.mark.parametrize("rank", [FIRST, SECOND])
def test_a_bare_word_in_a_padded_message_is_noticed(rank: int) -> None:
    def swap(party: Party) -> None:
        party.run(one_bare_word(given_additive(party, sample(64, 8), 64, 12, dealt=False)))

    with pytest.raises(AssertionError, match="bits changed"):
        assert_hidden(swap, rank)


def test_a_bare_correction_is_noticed() -> None:
    with pytest.raises(AssertionError, match="bits changed"):
        assert_hidden(bare_correction, SECOND)


def test_reveal_is_not_hidden() -> None:
    with pytest.raises(AssertionError, match="bits changed"):
        assert_hidden(lambda p: p.run(arithmetic.reveal(given(p, sample(8, 8), 32, 12))), FIRST)


SENDING = {"Piece", "correction", "exchange"}


def calls(tree: ast.AST) -> set[str]:
    """The last names of everything that is called."""
    found = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {getattr(call, "attr", getattr(call, "id", "")) for call in found}


def sends(text: str) -> list[str]:
    """Where a module talks to a party without a primitive: a message of its own, a link, or a bare `yield [...]`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        name = getattr(node, "attr", getattr(node, "id", getattr(node, "name", "")))
        if name in SENDING | {"links"} or (isinstance(node, ast.Yield) and isinstance(node.value, ast.List)):
            found.append(f"line {getattr(node, 'lineno', 0)}")
    return found


def test_only_primitives_send() -> None:
    """Composed protocols send through primitives alone, so what holds for these holds for all."""
    senders = set()
    for path in Path(puma.__file__).parent.joinpath("mpc").rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and calls(function) & {"Piece", "correction"}:
                senders.add(f"{path.stem}.{function.name}")
    assert senders == {
        "arithmetic._half",
        "arithmetic._masked",
        "arithmetic.open_coarsely",
        "arithmetic.reveal",
        "boolean._deal_rows",
        "boolean.evaluate",
        "boolean.open_masked",
        "lookup._dealt",
    }
    paths = [p for floor in ("nn", "models") for p in Path(puma.__file__).parent.joinpath(floor).rglob("*.py")]
    assert len(paths) > 15
    for path in paths:
        assert not sends(path.read_text()), path


@pytest.mark.parametrize(
    "text",
    [
        "from puma.mpc.party import Piece",
        "def f(x):\n    yield [Piece(x.part, 8)]",
        "def f(x):\n    yield [(x.part, 8)]",
        "x.party.correction(words, 8)",
        "x.party.exchange(message)",
        "x.party.links[0].send(words)",
        "send = party.correction",
    ],
)
def test_a_function_that_sends_by_itself_is_noticed(text: str) -> None:
    assert sends(text)
    assert not sends("def f(x):\n    (y,) = yield from reshare(x)\n    return y")


# -- uniform, and never twice ---------------------------------------------------------------------------------------


def chi_squared(octets: np.ndarray) -> float:
    expected = octets.size / 256
    return float(((np.bincount(octets, minlength=256) - expected) ** 2 / expected).sum())


@pytest.fixture(scope="module")
def members() -> list[Watched]:
    """Parties that have run functions of all kinds on zeros, where anything unpadded would show."""

    def functions(party: Party) -> None:
        zero = given(party, torch.zeros(64, 8), 48, 14)
        for function in (F.gelu, F.exp, F.relu, lambda x: F.layer_norm(x, 1e-5)):
            function(zero)
        F.softmax_matmul(zero, zero.transpose(0, 1), torch.ones(64, 8, dtype=torch.bool))

    return run(functions).members


@pytest.mark.parametrize("rank", [FIRST, SECOND])
def test_received_bytes_are_uniform(members: list[Watched], rank: int) -> None:
    """Chi squared, 255 degrees of freedom."""
    pieces = [f for f in heard(members, rank) if f.payload.size]
    whole = np.concatenate([f.payload[f.live == 255] for f in pieces])
    assert whole.size > 50_000
    assert 150 < chi_squared(whole) < 375, chi_squared(whole)
    bits = np.concatenate([np.unpackbits(f.payload)[np.unpackbits(f.live) == 1] for f in pieces])
    assert abs(bits.mean() - 0.5) < 2.5 / bits.size**0.5
    for f in pieces:
        assert not (f.payload & ~f.live).any()


def intervals(taken: list[Draw]) -> dict[bytes, list[Draw]]:
    streams: dict[bytes, list[Draw]] = {}
    for draw in taken:
        streams.setdefault(draw.key, []).append(draw)
    return streams


def test_no_stream_position_serves_twice() -> None:
    """All primitives twice in one session: positions only move forward, and both holders of a stream stand alike."""

    def everything(party: Party) -> None:
        for _ in range(2):
            for case in HIDDEN:
                if case in MPC or case.function in (F.gelu, F.layer_norm, F.softmax_matmul):
                    case.run(party)

    members, _, noted = run(everything)
    assert len(noted) == 3
    for taken in noted.values():
        for draws_of_one in intervals(taken).values():
            assert all(a.start + a.blocks <= b.start for a, b in pairwise(draws_of_one) if b.blocks)
    dealer, first, second = members
    for (rank, purpose), stream in dealer._streams.items():
        assert stream.position == members[rank]._streams[rank, purpose].position > 0
    common = {(SECOND, purpose) for rank, purpose in first._streams if rank == SECOND}
    assert common and all(first._streams[key].position == second._streams[FIRST, key[1]].position for key in common)
    assert len(dealer._streams) == len(first._streams) + len(second._streams) - 2 * len(common)

    for rank in (FIRST, SECOND):  # the same calls on the same inputs, yet nothing received comes a second time
        for received in members[rank].received.values():
            half = len(received) // 2
            for one, again in zip(received[:half], received[half:], strict=True):
                assert one.size == again.size and (one.size < 8 or (one != again).any())


def test_deal_gives_a_fresh_half_each_time() -> None:
    def twice(party: Party) -> list[torch.Tensor]:
        value = torch.zeros(16, dtype=torch.int64) if party.is_dealer else None
        return [deal(party, value, (16,), 64) for _ in range(2)]

    _, (a, b), (c, d) = parties(twice)
    assert not torch.equal(a, b) and torch.equal(a + c, torch.zeros_like(a)) and torch.equal(b + d, torch.zeros_like(a))


@pytest.mark.parametrize(("pair", "holders"), [((0, 1), (0, 1)), ((0, 2), (0, 2)), ((1, 2), (1, 2))])
def test_a_random_share_is_known_to_nobody(pair: tuple[int, int], holders: tuple[int, int]) -> None:
    """Each of its components is drawn from one pair's key, all of its bits: who lacks that key lacks the number."""

    def drawn(secrets: dict[tuple[int, int], bytes]) -> list[Share]:
        return parties(lambda party: arithmetic.random_share(party, (8,), 64), trio(secrets))

    before, after = drawn({}), drawn({pair: b"\x0b" * 32})
    for rank in range(3):
        kept = [torch.equal(a, b) for a, b in zip(before[rank].components, after[rank].components, strict=True)]
        assert kept.count(False) == (1 if rank in holders else 0), f"P{rank}"
    assert (joined(before) != joined(after)).all()


def test_shares_of_one_run_do_not_repeat_masks() -> None:
    def twice(party: Party) -> list[Share]:
        z = given_additive(party, sample(8, 8), 48, 24)
        return [party.run(arithmetic.reshare(z))[0] for _ in range(2)]

    first, again = parties(twice)[FIRST]
    assert (first.mask != again.mask).all() and (first.m != again.m).all()
