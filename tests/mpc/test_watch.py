"""The out-of-range flag rises for whatever leaves its reach, in every zone and at its joints, for no number inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from puma.mpc import watch, zones
from puma.mpc.arithmetic import open_truncate, reshare, square
from puma.mpc.clear import ClearParty, held
from puma.mpc.fixed import NONLINEAR, NORM_REACH, RESIDUAL
from puma.mpc.party import Party
from puma.mpc.share import Share
from puma.mpc.watch import coarse_rows, note_lift, note_rows, watching
from puma.nn import gates, splines
from tests.trio import given, joined, parties

Watched = Callable[[Party, Share], Any]


@pytest.fixture(params=["each", "together"])
def drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are drawn for each place at once, as where elements are many, or for all places of a pass together."""
    monkeypatch.setattr(watch, "FEW", 0 if request.param == "each" else 1 << 20)


def raised(watched: Watched, value: Tensor, bits: int, frac: int) -> Tensor:
    """Which rows of a value three parties flag, each row being a prompt; the clear run must flag those that all do."""

    def work(party: Party) -> Any:
        with watching(party, [1] * len(value)) as flags:
            watched(party, given(party, value, bits, frac))
        return party.run(reshare(flags.words))[0]

    return joined(parties(work)) != 0


def counted(watched: Watched, value: Tensor, bits: int, frac: int) -> Tensor:
    """How many flags of each row the clear run counts."""
    party = ClearParty()
    with watching(party, [1] * len(value)) as flags:
        watched(party, held(party, torch.round(value.double() * 2.0**frac).long(), bits, frac))
    return flags.words.part


def through(spline: splines.Spline, quick: tuple[str, ...]) -> Watched:
    def watched(party: Party, x: Share) -> None:
        party.quick = quick
        party.run(splines.piecewise(spline, x))

    return watched


def longer_than(length: float) -> Watched:
    def watched(party: Party, x: Share) -> None:
        found, drop, off = coarse_rows(x, length, 128 * length)
        coarse: Any = found
        (sums,) = party.run(open_truncate((square(coarse).sum(-1), drop)))
        note_rows(sums, off)

    return watched


SPLINES = [
    *(splines.reaching(spline, r) for spline in (splines.GELU, splines.SILU) for r in (6, 7, 8, 10, 12)),
    *(splines.reaching(splines.TANH_HALF, r) for r in (6, 7)),
    *(splines.exponential(14, r) for r in (6, 8, 11, 16)),
    *(gates.softcap_table(30.0, r) for r in (10, 11, 13)),
]


@pytest.mark.parametrize(
    ("spline", "quick"),
    [*((s, ()) for s in SPLINES), *((s, (p,)) for p in ("tables", "ranges") for s in SPLINES if s.at_once((p,), 1))],
    ids=lambda s: f"{s.name} {s.reach}" if isinstance(s, splines.Spline) else ",".join(s),
)
def test_what_enters_a_table_beyond_its_reach(spline: splines.Spline, quick: tuple[str, ...]) -> None:
    """Thousands of inputs inside, up to both ends; and from beyond the reach's double to where the ring comes back."""
    reach, ring, grid = 2.0**spline.reach, 2.0 ** (spline.reach + 1 + spline.room), 2.0**-spline.frac
    highest = 0.75 if spline.above is None else reach + spline.low - grid
    inside = torch.linspace(-reach, highest, 4000, dtype=torch.float64)
    inside = torch.cat([inside, torch.tensor([-reach, 0.0, highest])])
    assert not raised(through(spline, quick), inside[:, None], spline.ring, spline.frac).any()
    assert not counted(through(spline, quick), inside[:, None], spline.ring, spline.frac).any()
    unit, (lowest, top) = ring / 2 ** spline.top_widths[-1], spline.inside(spline.top_widths[-1])
    zone = torch.linspace((top + 2) * unit, ring + (lowest - 1) * unit - grid, 1000, dtype=torch.float64) + spline.low
    double = torch.tensor([-2 * reach, -2 * reach] if spline.above is None else [-2 * reach, 2 * reach])
    assert all(any((x + k * ring - zone[0]) * (x + k * ring - zone[-1]) <= 0 for k in (0, 1)) for x in double)
    beyond = torch.cat([zone, double])
    assert raised(through(spline, quick), beyond[:, None], spline.ring, spline.frac).all()
    assert counted(through(spline, quick), beyond[:, None], spline.ring, spline.frac).all()


@pytest.mark.parametrize("spline", [splines.GELU, splines.SILU, splines.EXP, splines.TANH_HALF], ids=lambda s: s.name)
def test_the_usual_reach_is_proven_and_costs_nothing(spline: splines.Spline) -> None:
    assert spline.room == 0 and spline.range_bits == NONLINEAR + spline.reach + 1


@pytest.mark.parametrize("bits", [16, 33, 48])
def test_what_cannot_be_lifted(bits: int) -> None:
    limit = 2.0 ** (bits - 2)
    inside = torch.cat([torch.linspace(-limit, limit - 1, 3001, dtype=torch.float64).round(), torch.zeros(1)])
    beyond = torch.linspace(1.5 * limit, 2.5 * limit, 1000, dtype=torch.float64).round()
    look: Watched = lambda party, x: note_lift(x)  # noqa: E731
    assert not raised(look, inside[:, None], bits, 0).any()
    assert raised(look, torch.cat([beyond, -beyond])[:, None], bits, 0).all()
    assert counted(look, beyond[:, None] % 2.0**bits, bits, 0).all()


@pytest.mark.parametrize("width", [1, 8, 768])
@pytest.mark.parametrize("reach", [5, 9, 14, 16, 20])
def test_rows_longer_than_their_reach(reach: int, width: int) -> None:
    """Rows of every length below, and from 1.2 times on: at the joints of the digits, and far beyond."""
    length, frac = 2.0**reach, min(RESIDUAL, RESIDUAL + NORM_REACH - reach)
    shapes = torch.randn(400, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shapes = shapes / shapes.norm(dim=1, keepdim=True)
    inside = shapes * torch.linspace(0, 0.999 * length, 400, dtype=torch.float64)[:, None]
    lengths = torch.cat([torch.linspace(1.2, 64, 300), 2.0 ** torch.arange(1, 6.5, 0.25), torch.linspace(100, 127, 75)])
    beyond = shapes[: len(lengths)] * (length * lengths[:400, None])
    look = longer_than(1.05 * length)
    assert not raised(look, inside, 62, frac).any() and not counted(look, inside, 62, frac).any()
    found = raised(look, beyond, 62, frac)
    assert found.all(), lengths[~found]
    assert counted(look, beyond, 62, frac).all()


@pytest.mark.usefixtures("drawn")
def test_one_number_among_thousands_is_enough_and_tells_its_prompt_alone() -> None:
    """In any row and column; rows of several prompts lie one after the other."""
    spline, lengths = splines.reaching(splines.GELU, 6), [3, 1, 4]

    def work(party: Party, x: Tensor) -> Any:
        with watching(party, lengths) as flags:
            party.run(splines.piecewise(spline, given(party, x, spline.ring, spline.frac)))
        return party.run(reshare(flags.words))[0]

    for row, prompt in ((0, 0), (2, 0), (3, 1), (4, 2), (7, 2)):
        x = torch.zeros(8, 37, dtype=torch.float64)
        x[row, (5 * row) % 37] = -125.0
        words = joined(parties(lambda party, x=x: work(party, x)))
        assert (words != 0).tolist() == [i == prompt for i in range(3)]


@pytest.mark.usefixtures("drawn")
def test_flags_do_not_cancel() -> None:
    """Pairs, whole rows and whole blocks of flags, whose signs are as often + as -: none adds up to 0, and no two
    words are alike."""
    spline = splines.reaching(splines.GELU, 6)
    x = torch.zeros(600, 4, dtype=torch.float64)
    x[:200, :2], x[200:400, :] = 125.0, -125.0
    x[400:, 1::2] = 125.0

    def work(party: Party) -> Any:
        with watching(party, [2] * 300) as flags:
            party.run(splines.piecewise(spline, given(party, x, spline.ring, spline.frac)))
        return party.run(reshare(flags.words))[0]

    words = joined(parties(work)).tolist()
    assert 0 not in words and len(set(words)) == len(words)
    assert max(abs(word) for word in words) > 2**58  # the whole ring, and not a number of flags


@pytest.mark.usefixtures("drawn")
def test_places_do_not_cancel() -> None:
    """The same number is out of range at two places, one after the other; weights are drawn afresh."""
    spline = splines.reaching(splines.GELU, 6)
    x = torch.full((200, 1), 125.0, dtype=torch.float64)

    def work(party: Party) -> Any:
        with watching(party, [1] * 200) as flags:
            share = given(party, x, spline.ring, spline.frac)
            for _ in range(2):
                party.run(splines.piecewise(spline, share))
        return party.run(reshare(flags.words))[0]

    assert 0 not in joined(parties(work)).tolist()


def test_what_waits_is_weighed_before_it_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MANY", 10)
    spline = splines.reaching(splines.GELU, 6)
    x = torch.zeros(3, 2, dtype=torch.float64)
    x[1, 1] = 125.0

    def work(party: Party) -> tuple[Any, int]:
        with watching(party, [1] * 3) as flags:
            for row in (x, x * 0, x * 0):
                party.run(splines.piecewise(spline, given(party, row, spline.ring, spline.frac)))
            return party.run(reshare(flags.words))[0], flags._few

    found = parties(work)
    assert (joined([words for words, _ in found]) != 0).tolist() == [False, True, False]
    assert [few for _, few in found] == [0, 0, 0]


def test_nobody_watches_unless_asked() -> None:
    spline = splines.reaching(splines.GELU, 6)

    def work(party: Party) -> None:
        party.run(splines.piecewise(spline, given(party, torch.zeros(3, 2), spline.ring, spline.frac)))
        assert party.on_watch is None

    parties(work)


def test_words_are_not_shown() -> None:
    party = ClearParty()
    with watching(party, [1, 2]) as flags:
        assert repr(flags) == "Watch(prompts=2)"
    assert party.on_watch is None


def test_what_is_cut_off_rows_is_small() -> None:
    for length in (2.0**5, 1000.0, 2.0**16):
        party = ClearParty()
        coarse, _, off = coarse_rows(held(party, torch.zeros(1, 1).long(), 62, RESIDUAL), length, 9 * length)
        assert 2.0**-coarse.frac <= length / 2**12 and 0 <= off <= 8 << zones.EIGHTH


@pytest.mark.usefixtures("drawn")
def test_weights_have_a_stream_of_their_own() -> None:
    """Nothing else that the evaluators have in common is drawn for a flag, and each flag's weights but once."""
    spline = splines.reaching(splines.GELU, 6)

    def work(party: Party) -> list[str]:
        with watching(party, [1] * 3) as flags:
            for _ in range(2):
                party.run(splines.piecewise(spline, given(party, torch.zeros(3, 2), spline.ring, spline.frac)))
            party.run(reshare(flags.words))
        other = 3 - party.rank
        return [purpose for peer, purpose in party._streams if not party.is_dealer and peer == other]

    assert parties(work)[1:] == [["watch"]] * 2


@pytest.mark.usefixtures("drawn")
def test_the_dealer_draws_no_weights() -> None:
    spline = splines.reaching(splines.GELU, 6)

    def work(party: Party) -> bool:
        with watching(party, [1] * 3) as flags:
            party.run(splines.piecewise(spline, given(party, torch.zeros(3, 2), spline.ring, spline.frac)))
            party.run(reshare(flags.words))
        return any(purpose == "watch" and peer != 3 - party.rank for peer, purpose in party._streams)

    assert parties(work) == [False] * 3
