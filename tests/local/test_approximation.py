"""A session computes with one profile: all say so, each request says it again, and answers are that profile's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from puma import LocalCluster
from puma.engine.dry_run import dry_run
from puma.errors import PumaError, UsageError
from puma.local.cluster import Trio
from puma.models import architecture
from puma.nn import paper
from puma.reference.plain_model import PlainModel
from puma.wire.launch import Start
from puma.wire.request_shapes import shaped
from tests.models.plain import one_hot
from tests.threads import Threads

TEXT = "the cat sat"


def plain(clear: PlainModel, profile: str) -> torch.Tensor:
    """The profile's logits in float."""
    tokens = clear.sentence_ids(TEXT)
    model = architecture(clear.config).model(clear.config, clear.params)
    states = model(paper.marked(one_hot(tokens.ids, clear.config.vocab_size), profile), tokens.types)
    return model.classify(states)[0].as_subclass(torch.Tensor).double()


@pytest.mark.parametrize("profile", [paper.PUMA, paper.MPCFORMER])
def test_answers_are_the_profiles(profile: str, checkpoints: dict[str, Path]) -> None:
    clear = PlainModel(checkpoints["classifier"])
    with Threads(approximation=profile) as trio:
        found = LocalCluster(clear, trio=trio).encode(TEXT).values  # type: ignore[arg-type]
    exact, own = clear.encoded(clear.sentence_ids(TEXT)), plain(clear, profile)
    assert (found - own).abs().max() < 2e-3
    assert (exact - own).abs().max() > 1e-3


@pytest.mark.processes
def test_three_processes_compute_with_it(checkpoints: dict[str, Path]) -> None:
    clear = PlainModel(checkpoints["classifier"])
    with LocalCluster(clear, approximation="mpcformer") as cluster:
        assert cluster.session.approximation == "mpcformer"
        found, cost = cluster.encode(TEXT).values, cluster.cost
        with pytest.raises(UsageError, match="compute with mpcformer, not puma"):
            LocalCluster(clear, trio=cluster._trio, approximation="puma")
    assert (found - plain(clear, "mpcformer")).abs().max() < 2e-3
    counted = dry_run(clear.config, shaped(clear.config, len(clear.sentence_ids(TEXT).ids), None, 1, "mpcformer"))
    spent = {s.name: s.rounds for s in counted[1]}
    assert spent["attention"] == next(p["rounds"] for p in cost.breakdown if p["name"] == "attention")


def test_a_request_that_names_another_is_refused(checkpoints: dict[str, Path]) -> None:
    with Threads(approximation="puma") as trio:
        cluster = LocalCluster(checkpoints["llama"], trio=trio)  # type: ignore[arg-type]
        trio.session.approximation = "spline"
        with pytest.raises(UsageError, match="compute with puma, the request names spline"):
            cluster.generate(TEXT, 1)


def test_what_was_prepared_serves_its_profile_alone(checkpoints: dict[str, Path], memory: Path) -> None:
    clear = PlainModel(checkpoints["llama"])
    length = len(clear.prompt_ids(TEXT, 1))
    found = []
    for profile in ("puma", "spline", "puma"):
        with Threads(memory, approximation=profile) as trio:
            cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
            if not found:
                cluster.prepare(length, 1)
                found.append("prepared")
                continue
            cluster.generate(TEXT, 1)
            found.append(cluster.cost.prepared is not None)
    assert found == ["prepared", False, True]


def test_profiles_differ_in_cost(checkpoints: dict[str, Path]) -> None:
    config = PlainModel(checkpoints["bert"]).config
    rounds = {p: sum(s.rounds for s in dry_run(config, shaped(config, 8, None, 1, p))[1]) for p in paper.PROFILES}
    assert rounds["mpcformer"] < rounds["spline"] < rounds["puma"]


def test_parties_that_were_told_different_things_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile is part of the digest that the handshake compares."""
    seen: list[bytes] = []

    def told(_: object, start: Start) -> None:
        seen.append(start.config)
        raise PumaError("enough is known")

    gone = SimpleNamespace(kill=lambda: None, gone=lambda _: True, pipes=tuple, pid=0)
    monkeypatch.setattr("puma.local.trio.nursery.load", lambda program: None)
    monkeypatch.setattr("puma.local.trio.nursery.party", lambda program: gone)
    monkeypatch.setattr("puma.local.trio._tell", told)
    monkeypatch.setattr(Trio, "kill", lambda self: None)
    for profile in paper.PROFILES:
        with pytest.raises(PumaError, match="enough"):
            Trio(approximation=profile)
    assert len(set(seen)) == 3
    with pytest.raises(UsageError, match="approximation cannot be exact"):
        Trio(approximation="exact")
