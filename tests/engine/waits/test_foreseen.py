"""What evaluators draw ahead of a model: in the order of use, and no longer than somebody asks."""

from __future__ import annotations

import pytest

from puma.engine.company import Company, Member
from puma.engine.engine import Engine
from puma.engine.generation import run
from puma.models import architecture
from puma.mpc.party import Party
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Encode, Generate
from puma.wire.parameters import tensor_specs
from puma.wire.steps import Item
from tests.engine.stepping import asked, engine
from tests.models import tiny
from tests.trio import given_seeded, parties

PROMPTS = [[2, 5, 7], [3]]


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1))


class Drawn:
    """What an evaluator would have drawn ahead for a model."""

    forgotten = 0

    def meanwhile(self, link: object) -> None: ...

    def waited(self, seconds: float) -> None: ...

    def take(self, weight: object) -> None: ...

    def forget(self) -> None:
        self.forgotten += 1


def drawing(mine: Engine) -> Drawn:
    mine.foreseen = drawn = Drawn()  # type: ignore[assignment]
    return drawn


def test_masks_are_foreseen_in_the_order_of_use(clear: PlainModel) -> None:
    """Whatever the order in which parameters are given: names of what has several come last there."""

    def compute(party: Party) -> None:
        params = {
            spec.name: given_seeded(party, clear.params[spec.name], spec.bits, spec.frac, spec.name)
            for spec in reversed(tensor_specs(clear.config))
        }
        found = Engine(party, clear.config, params).foreseen
        if party.is_dealer:
            assert found is None
            return
        assert found is not None
        names = {id(share): name for name, share in params.items()}
        wanted = [name for name in architecture(clear.config).parameters(clear.config) if len(params[name].shape) == 2]
        assert [names[id(weight)] for weight in found._weights] == wanted

    parties(compute)


def test_what_was_drawn_ahead_goes_with_the_last_member(clear: PlainModel) -> None:
    """Half a gigabyte of each model's masks would stay for ever, and count as memory that no new session may have."""
    jobs = [asked(clear, [ids], lambda given: Generate(given, 3, paced=True)) for ids in PROMPTS]

    def compute(party: Party) -> None:
        company, mine = Company(party), engine(clear, party)
        drawn, served = drawing(mine), (b"m", "spline", ())
        a, b = (Member(Item(bytes(16), i), "a", served, mine, [job.at(party)]) for i, job in enumerate(jobs))
        for number in range(2):
            company.step(number, [a, b])
            assert not drawn.forgotten and party.foreseen is drawn
        company.drop(b)
        assert not drawn.forgotten
        company.step(2, [a])
        assert drawn.forgotten == 1 and party.foreseen is None

    parties(compute)


def test_what_was_drawn_ahead_goes_when_another_model_is_computed(clear: PlainModel) -> None:
    jobs = [asked(clear, [ids], lambda given: Generate(given, 3, paced=True)) for ids in PROMPTS]

    def compute(party: Party) -> None:
        company, engines = Company(party), [engine(clear, party) for _ in range(2)]
        found = [drawing(mine) for mine in engines]
        for number, (job, mine) in enumerate(zip(jobs, engines, strict=True)):
            served = bytes([number]), "spline", ()
            company.step(number, [Member(Item(bytes(16), number), "a", served, mine, [job.at(party)])])
        assert [drawn.forgotten for drawn in found] == [1, 0] and party.foreseen is found[1]

    parties(compute)


@pytest.mark.parametrize("generates", [True, False])
def test_what_was_drawn_ahead_goes_with_a_request_that_runs_alone(clear: PlainModel, generates: bool) -> None:
    job = asked(clear, PROMPTS[:1], lambda given: Generate(given, 2) if generates else Encode(given, "hidden"))

    def compute(party: Party) -> None:
        mine = engine(clear, party)
        drawn, given = drawing(mine), job.at(party).given
        assert given is not None
        run(mine, job.job, given, lambda share: None)
        assert drawn.forgotten == 1 and party.foreseen is None

    parties(compute)
