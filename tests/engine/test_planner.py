"""Plans: what they save and cost, which one a network asks for, and that all parties compute by the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from puma.engine.admission import OWNER, admit
from puma.engine.dry_run import Memory, counted
from puma.engine.planner import Link, measured, planned, prices, spending, with_plan
from puma.errors import UsageError
from puma.measure.bench import RandomParams
from puma.measure.forecast import forecast
from puma.models import in_the_open, with_layers
from puma.models.config import Bert, Llama
from puma.mpc.fixed import ACTIVATION, NORM_REACH
from puma.mpc.party import DEALER
from puma.nn import functional as F
from puma.nn import variants
from puma.nn.inverses import QUICK_BOUND, QUICK_ROOT_BOUND
from puma.nn.roots import row_format
from puma.nn.splines import EXP, SILU
from puma.nn.variants import QUICK, VARIANTS, checked, named, title
from puma.reference.float_session import Plain
from puma.wire.messages import Encode, Generate, Input
from tests.threads import Threads
from tests.trio import parties, trio

LLAMA = Llama(vocab_size=50, hidden_size=16, intermediate_size=24, layers=2, heads=2, kv_heads=1)
BERT = Bert(vocab_size=40, hidden_size=12, intermediate_size=20, layers=2, heads=3)
MIXTURE = msgspec.structs.replace(LLAMA, experts=4, chosen=2, expert_size=8)
# Of random numbers as models begin with them a row is so short that its places decide, and an MLP adds next to nothing.
LOUD = {name: x * (50 if "embed" in name else 12 if x.dim() == 2 else 1) for name, x in RandomParams(LLAMA).items()}
CASES = [(LLAMA, Generate(Input([9], []), 3)), (BERT, Encode(Input([21], []), "hidden"))]


@pytest.mark.parametrize(("config", "request_"), CASES)
def test_each_variant_saves_rounds_by_itself_and_all_save_their_sum(config: Any, request_: Any) -> None:
    lean, quick = spending(config, request_, ()), spending(config, request_, VARIANTS)
    saved = [lean.rounds - spending(config, request_, (name,)).rounds for name in VARIANTS]
    means_nothing = {"tables", "norm" if config is LLAMA else "gated"}  # usual reaches make the digits too long
    assert [name for name, n in zip(VARIANTS, saved, strict=True) if n <= 0] == [
        n for n in VARIANTS if n in means_nothing
    ]
    assert lean.rounds - quick.rounds >= sum(saved)
    assert quick.total < 3 * lean.total  # of a model as small as this one, whose rows are short


@pytest.mark.parametrize(("config", "request_"), CASES)
def test_a_slow_network_asks_for_few_rounds_and_a_narrow_one_for_few_bytes(config: Any, request_: Any) -> None:
    far, narrow = planned(config, request_, Link(0.04, 4e8)), planned(config, request_, Link(1e-6, 1e5))
    assert spending(config, request_, far).rounds == spending(config, request_, VARIANTS).rounds
    assert spending(config, request_, narrow).total <= spending(config, request_, ()).total


@pytest.mark.parametrize(("config", "request_"), [*CASES, (MIXTURE, CASES[0][1]), (in_the_open(LLAMA), CASES[0][1])])
def test_what_runs_by_other_plans_remember_is_what_each_counts(config: Any, request_: Any) -> None:
    memory, plans = Memory("spline"), [(), *((name,) for name in VARIANTS), QUICK, VARIANTS, ()]
    for plan in plans:
        assert counted(config, with_plan(request_, plan), memory) == counted(config, with_plan(request_, plan)), plan
    longer = with_layers(config, 9)
    assert counted(longer, request_, memory) == counted(longer, request_)
    if isinstance(request_, Encode):
        alone = {name: spending(config, request_, (name,) if name else ()) for name in ("", *VARIANTS)}
        assert prices(config, request_) == alone


def test_open_weights_are_read_without_products_of_two_words() -> None:
    """What only public matrices read grows in them: to open it in their ring would save no round."""
    far = planned(in_the_open(LLAMA), CASES[0][1], Link(0.04, 4e8))
    assert "direct" not in far and "inverse" in far


def test_the_price_of_a_plan_is_rounds_and_bytes_whichever_takes_longer() -> None:
    link, some = Link(0.04, 8e6), spending(CASES[0][0], CASES[0][1], ())
    assert link.seconds(replace(some, rounds=some.rounds + 50)) - link.seconds(some) > 0.99
    assert link.seconds(replace(some, dealt=10**8)) == pytest.approx(100, rel=0.01)


def test_plans_have_names() -> None:
    assert (named("lean"), named("quick"), named("auto")) == ((), QUICK, None)
    assert named("norm, maximum") == ("maximum", "norm") == checked(["norm", "maximum"])
    assert [title(plan) for plan in ((), QUICK, ("norm",), ("maximum", "norm"))] == [
        "lean",
        "quick",
        "norm",
        "maximum,norm",
    ]
    for wrong in ("fast", "norm,fast", ""):
        with pytest.raises(UsageError, match="there is no plan"):
            named(wrong)
    with pytest.raises(UsageError, match="auto"):
        variants.quick_of("auto")


@pytest.mark.parametrize("quick", [("norm", "maximum"), ("norm", "norm"), ("other",)])
def test_a_party_refuses_a_plan_that_is_none(quick: tuple[str, ...]) -> None:
    job = with_plan(CASES[0][1], quick)
    with pytest.raises(UsageError):
        admit(LLAMA, "spline", job, OWNER)
    admit(LLAMA, "spline", with_plan(job, QUICK), OWNER)


def test_the_evaluators_measure_and_the_dealer_does_not() -> None:
    members = trio()
    found = parties(measured, members)
    assert found[DEALER] is None
    for link in found[1:]:
        assert link is not None and 0 < link.rtt < 1 and link.rate > 1e6


@pytest.fixture(scope="module")
def served() -> Iterator[Threads]:
    with Threads() as trio:
        trio.share(LLAMA, LOUD)
        yield trio


def test_answers_are_alike_by_every_plan_and_cost_what_is_forecast(served: Threads) -> None:
    session, prompt, found, rounds = served.session, [3, 17, 8, 30, 2], dict[str, Any](), dict[str, int]()
    for plan in ("lean", "quick", "auto", "inverse"):
        session.variants = plan
        found[plan] = [token for (token,) in session.continued([prompt], 4)]
        assert session.cost is not None
        rounds[plan] = session.cost.rounds
        quick = session.plans[(3, 1, 3)] if plan == "auto" else named(plan)
        assert quick is not None
        expected = forecast(LLAMA, with_plan(Generate(Input([5], []), 4), quick))
        assert (session.cost.rounds, session.cost.total) == (expected.rounds, expected.total)
    assert len({tuple(tokens) for tokens in found.values()}) == 1
    assert rounds["quick"] < rounds["inverse"] < rounds["lean"]
    assert session.network is not None and session.network.rtt > 0


def test_hidden_states_are_as_near_to_plaintext_by_the_quick_plan(
    served: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As near as functions make them that err by all that they may, one way or the other by chance: these are the
    bounds that functions declare. By less than what one that is three in a hundred off would make of them."""
    session, prompts, plain = (
        served.session,
        [[3, 17, 8, 30, 2], [1, 2], [9, 4, 31, 22, 10, 11, 40]],
        Plain(LLAMA, LOUD),
    )
    exact = plain.encode(prompts, "hidden")

    def off(states: Sequence[Tensor]) -> float:
        return max(float((x - y).abs().max()) for x, y in zip(states, exact, strict=True))

    far = dict[str, float]()
    for plan in ("lean", "quick"):
        session.variants = plan
        far[plan] = off(session.encode(prompts, "hidden"))
    with monkeypatch.context() as erring:
        for name, function in erring_functions().items():
            erring.setattr(F, name, function)
        allowed = max(off(plain.encode(prompts, "hidden")) for _ in range(32))
    assert max(far.values()) < allowed, (far, allowed)
    for name, right in {"rms_norm": F.rms_norm, "softmax_matmul": F.softmax_matmul, "silu_gated": F.silu_gated}.items():
        with monkeypatch.context() as wrong:
            wrong.setattr(F, name, lambda *given, right=right: 1.03 * right(*given))
            assert off(plain.encode(prompts, "hidden")) > allowed, (name, allowed)


def erring_functions() -> dict[str, Callable[..., Any]]:
    """Functions of the plain run of which each number is off by its bound, up or down by chance."""
    chance, row = torch.Generator().manual_seed(5), row_format(NORM_REACH)
    rounded, attend, gated, heads = 1.5 * 2.0**-ACTIVATION, F.softmax_matmul, F.silu_gated, F.heads

    def either(x: Tensor, size: float) -> Tensor:
        return size * (2.0 * torch.randint(0, 2, x.shape, generator=chance) - 1)

    def less_exact(x: Tensor) -> Tensor:
        return x + either(x, rounded)

    def erring_norm(x: Tensor, eps: float, *formats: Any) -> Tensor:
        squares = (x + either(x, row.step)).pow(2).sum(-1, keepdim=True)
        root = torch.rsqrt((squares + either(squares, 1.5 * 2.0**-row.sum_frac)) / x.shape[-1] + eps)
        return less_exact(x * root * (1 + either(root, QUICK_ROOT_BOUND)))

    def erring_attention(scores: Tensor, v: Tensor, *formats: Any) -> Tensor:
        terms = scores + torch.log1p(either(scores, EXP.bound))
        found = attend(terms, v, *formats)
        return less_exact(found * (1 + either(found[..., :1], QUICK_BOUND)))

    def erring_gate(gate: Tensor, up: Tensor, *formats: Any) -> Tensor:
        return less_exact(gated(gate, up, *formats) + either(gate, SILU.bound) * up)

    return {
        "rms_norm": erring_norm, "softmax_matmul": erring_attention, "silu_gated": erring_gate,
        "heads": lambda *given: [less_exact(x) for x in heads(*given)],
    }  # fmt: skip


def test_a_session_without_links_of_its_own_has_a_plan_too(served: Threads) -> None:
    """One beside others on one machine, as threads of a program have them."""
    session = served.another()
    assert session.open(served.session.card.name)  # type: ignore[union-attr]
    session.variants = "auto"
    served.session.variants = "lean"
    assert [*session.continued([[3, 17, 8, 30, 2]], 2)] == [*served.session.continued([[3, 17, 8, 30, 2]], 2)]
    session.close()
