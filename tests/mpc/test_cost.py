"""What a primitive declares is what the ledgers count, to the byte, in a full run and in a dry one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from puma.measure import cost_table
from puma.mpc import cost
from puma.mpc.cost import DECLARED, Cost, Ledger, Size, message_bits, message_bytes
from puma.mpc.party import Party
from puma.nn import functional as F
from tests.case import COSTS, Case, parts
from tests.cases import CASES
from tests.trio import counted, dry, given, parties, spent, trio
from tests.watch import once

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


def counts(party: Party) -> dict[str, tuple[int, ...]]:
    party.ledger.total()
    return {
        name: (e.rounds, e.online, e.offline, e.frames_online, e.frames_offline)
        for name, e in party.ledger.entries.items()
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_declared_is_counted_and_dry_is_real(case: Case) -> None:
    full, shadows = once(case), dry()
    total = spent([p.ledger.total() for p in full.members])
    for party, result, shadow in zip(full.members, full.results, shadows, strict=True):
        assert case.cost(party) in (None, total) and case.cost(shadow) in (None, total)
        words, shapes = parts(result), parts(case.run(shadow))
        assert [None if t is None else t.shape for t in words] == [None if t is None else t.shape for t in shapes]
        assert all(t is None or t.is_meta for t in shapes)
        assert counts(party) == counts(shadow)
    assert case.name in COSTS or case.cost(shadows[0]) == total
    assert COSTS.get(case.name, total) == total


def test_every_declaration_has_a_case() -> None:
    assert {case.declared for case in CASES} == set(DECLARED)


def test_the_ledger_counts_bytes_that_leave() -> None:
    """Payload and headers, as the links count them."""
    members = trio()
    parties(lambda p: CASES[-1].run(p), members)
    for party in members:
        entry = party.ledger.total()
        assert entry.online_bytes + entry.offline_bytes == sum(link.sent_bytes for link in party.links.values())


def test_scopes_book_by_the_innermost_name() -> None:
    ledger = Ledger()
    with ledger.scope("outer"):
        ledger.sent(3, online=True)
        with ledger.scope("inner"):
            ledger.sent(5, online=False)
            ledger.round()
        ledger.sent(2, online=True)
    outer, inner = ledger.entries["outer"], ledger.entries["inner"]
    assert (outer.online, outer.frames_online, outer.rounds) == (5, 2, 0)
    assert (inner.offline, inner.frames_offline, inner.rounds) == (5, 1, 1)
    assert ledger.total().online_bytes == 5 + 2 * cost.FRAME_HEADER_BYTES
    ledger.reset()
    assert ledger.total().online == 0


def test_costs_add_up_and_run_side_by_side() -> None:
    a, b = Cost(2, 10, 3), Cost(5, 1, 1)
    assert a + b == Cost(7, 11, 4)
    assert a.beside(b) == b.beside(a) == Cost(5, 11, 4)
    assert Size((3, 0), 8).numel() == 0 and Size((), 8).numel() == 1


@pytest.mark.parametrize("bits", range(1, 65))
def test_words_take_their_bits_and_a_piece_whole_bytes(bits: int) -> None:
    assert message_bytes(16, bits) == 2 * bits
    assert message_bits(17, bits) - 17 * bits in range(8) and message_bits(17, bits) == 8 * message_bytes(17, bits)


def test_an_empty_secret_costs_nothing_but_its_rounds() -> None:
    members = trio()
    results = parties(lambda p: F.gelu(given(p, torch.zeros(0, 4), 48, 14)), members)
    assert results[1].shape == (0, 4)
    rounds = counted(lambda p: F.gelu(given(p, torch.zeros(1, 4), 48, 14))).rounds
    assert spent([p.ledger.total() for p in members]) == Cost(rounds, 0, 0)


def test_the_documented_table_is_the_declared_one() -> None:
    marked = re.findall(r"<!-- cost table -->\n(.*?)\n?<!-- /cost table -->", PROTOCOL.read_text(), re.DOTALL)
    assert marked == [cost_table.table()], "run `make docs`, or paste what `python -m puma.measure.cost_table` prints"
