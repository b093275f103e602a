"""Plans: the choice between proof, calibration and refusal, and what a plan does to a model that is too large for the
usual formats."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from puma.errors import RangeError, UsageError
from puma.models import architecture
from puma.models.architecture import Bound
from puma.models.bounds import ADDED
from puma.models.formats import places
from puma.nn.places import LARGEST, LEAST, SEEN
from puma.reference import plan_cache
from puma.reference.fixed_session import FixedSession
from puma.reference.observed import Seen, Watch
from puma.reference.plain_model import PlainModel
from puma.reference.plan import Calibration, Plan, made
from puma.reference.planning import Settings
from tests.models import tiny, zoo


def calibration(**seen: float) -> Calibration:
    """Of places named a norm, gate, product and so on by their kinds."""
    watch = Watch()
    for kind, value in seen.items():
        watch.seen[kind, "" if kind == "stream" else f"the.{kind}"] = Seen(value, 100.0)
    return Calibration(watch, 3, 30)


def plan(bounds: dict[str, float], margin: int = 3, **seen: float) -> Plan:
    kinds = {f"the.{kind}": kind for kind in seen if kind != "stream"}
    proofs = [Bound(f"the.{kind}", bound, "") for kind, bound in bounds.items()]
    return made(kinds, proofs, calibration(**seen), margin)


def chosen(found: Plan, kind: str) -> tuple[int, bool]:
    place = next(place for place in found.places if place.kind == kind)
    return place.reach, place.proven


def test_a_proof_counts_wherever_there_is_one() -> None:
    found = plan({"activation": 30.0}, stream=5.0, norm=20.0, activation=20.0)
    assert chosen(found, "norm") == (8, False)  # 20 * 8 < 2^8
    assert chosen(found, "activation") == (6, True)  # 30 + 16 < 2^6; three bits above 20 are more
    assert found.formats.places == {"the.norm": 8, "the.activation": 6}
    assert found.provenance.proven == found.formats.proven == ("the.activation",)
    assert chosen(plan({"activation": 3000.0}, stream=5.0, activation=20.0), "activation") == (12, True)


def test_scores_follow_too() -> None:
    assert chosen(plan({"scores": 1000.0}, stream=5.0, scores=20.0), "scores") == (11, True)  # 1008 + 32 > 2^10
    assert chosen(plan({}, stream=5.0, scores=20.0), "scores") == (8, False)  # 20 * 8 + 32 < 2^8


def test_fixed_point_may_exceed_a_bound_by_a_little() -> None:
    assert chosen(plan({"gated": 2.0**9 - 1}, stream=1.0, gated=1.0), "gated") == (10, True)
    assert chosen(plan({"gated": 2.0**9 - 8}, stream=1.0, gated=1.0), "gated") == (9, True)


def test_a_reach_that_stands_for_a_proof_is_not_calibrated() -> None:
    """What has the usual reach is not watched, so that what is not proven gets another."""
    assert chosen(plan({}, stream=5.0, scores=1500.0), "scores") == (15, False)
    assert chosen(plan({}, stream=5.0, activation=50.0), "activation") == (10, False)
    assert chosen(plan({"activation": 400.0}, stream=5.0, activation=50.0), "activation") == (9, True)


def test_what_is_not_proven_leaves_room_to_be_seen() -> None:
    assert chosen(plan({}, stream=1.0, gated=0.1, value=0.1), "gated") == (SEEN, False)
    assert chosen(plan({"value": 0.1}, stream=1.0, value=0.1), "value") == (LEAST["value"], True)


def test_a_bound_just_beyond_rings_is_watched_and_a_larger_one_gives_way_to_a_calibration() -> None:
    """All that is at most twice the reach lies in the zone."""
    assert chosen(plan({"activation": 2e4}, stream=1.0, activation=10.0), "activation") == (14, False)
    assert chosen(plan({"activation": 1e6}, stream=1.0, activation=10.0), "activation") == (7, False)  # 80 + 16 < 2^7
    assert chosen(plan({"value": 1e9}, stream=1.0, value=10.0), "value") == (7, False)
    with pytest.raises(RangeError, match=r"spread of a row's logits at the\.logits can be 1e\+09, beyond what rings"):
        plan({"logits": 1e9}, stream=1.0, logits=0.0)
    with pytest.raises(RangeError, match=r"values of attention at the\.value can be 1e\+06, beyond what rings hold"):
        plan({"value": 1e9}, stream=1.0, value=1e6)


@pytest.mark.parametrize("kind", ["stream", "norm", "logits"])
def test_what_goes_beyond_rings_is_refused(kind: str) -> None:
    with pytest.raises(RangeError, match="beyond what rings hold"):
        plan({}, 3, **({"stream": 1.0} | {kind: 2.0 ** LARGEST[kind]}))
    with pytest.raises(RangeError, match="becomes infinite"):
        plan({}, 3, **({"stream": 1.0} | {kind: math.inf}))


def test_the_streams_ring_holds_what_is_added_to_rows_that_were_not_flagged() -> None:
    """Up to twice the reach: a row of 1.25 * 2^8, and what the largest matrix adds."""

    def stream(size: float) -> int:
        kinds, bound = {"the.norm": "norm"}, Bound("the.writer", size, ADDED)
        return made(kinds, [bound], calibration(stream=3.0, norm=20.0)).formats.stream

    assert [stream(size) for size in (1.0, 180.0, 190.0, 690.0, 720.0)] == [8, 8, 8, 9, 10]
    assert plan({}, stream=3.0, norm=20.0).formats.stream == 5


def test_margins_and_the_smallest_reach() -> None:
    assert [plan({}, margin, stream=100.0).formats.stream for margin in (0, 1, 3, 5)] == [7, 8, 10, 12]
    assert plan({}, stream=0.01).formats.stream == LEAST["stream"]
    assert plan({}, stream=0.01, norm=0.01).formats.places == {"the.norm": LEAST["norm"]}


def test_one_reach_for_all_layers_alike() -> None:
    kinds = {f"layers.{i}.{name}": kind for i in range(3) for name, kind in (("norm", "norm"), ("gate", "activation"))}
    watch = Watch()
    watch.seen = {("stream", ""): Seen(4.0)}
    watch.seen |= {(kind, name): Seen(float(1 + 40 * ("1" in name)), 1.0) for name, kind in kinds.items()}
    bounds = [Bound("layers.0.gate", 3.0, ""), Bound("layers.2.gate", 3.0, "")]
    by_layer, coarse = (made(kinds, bounds, Calibration(watch, 1, 1), 3, coarse) for coarse in (False, True))
    assert [by_layer.formats.places[f"layers.{i}.norm"] for i in range(3)] == [4, 9, 4]
    assert [coarse.formats.places[f"layers.{i}.norm"] for i in range(3)] == [9, 9, 9]
    assert [coarse.formats.places[f"layers.{i}.gate"] for i in range(3)] == [10, 10, 10]
    assert by_layer.provenance.proven and not coarse.provenance.proven  # one of them was only seen


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "classifier"])
def test_every_place_of_a_model_is_planned(kind: str, checkpoints: dict[str, Path]) -> None:
    model = PlainModel(checkpoints[kind])
    found = model.plan()
    known = places(architecture(model.config).model(model.config))
    assert {place.name for place in found.places if place.name} == set(known) == set(found.formats.places)
    assert model.config.formats == found.formats
    assert all(place.seen < 2.0**place.reach for place in found.places)


@pytest.mark.parametrize("name", ["olmo2", "qwen2-moe", "gpt-oss", "qwen3.5"])
def test_a_plan_holds(name: str, tmp_path: Path) -> None:
    """By its plan a model says in fixed point what it says in float, and nothing comes beyond its limit: of one whose
    matrices read the stream, of mixtures of experts, of layers with a memory."""
    model = PlainModel(zoo.write(tmp_path, name))
    model.plan()
    alone, ids = FixedSession(model.config, model.params), [[2, 5, 7, 9, 27], [3, 8]]
    assert list(alone.continued(ids, 4)) == list(model.session.continued(ids, 4))
    assert all(note.used < 1 for note in alone.notes)


def test_a_plan_is_made_once(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = PlainModel(checkpoints["llama"]).plan(Settings(margin=5))
    monkeypatch.setattr("puma.reference.planning.observe", None)
    assert PlainModel(checkpoints["llama"]).plan(Settings(margin=5)) == first
    with pytest.raises(TypeError):
        PlainModel(checkpoints["llama"]).plan(Settings(margin=4))


def test_another_weight_makes_another_plan(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path)
    first = PlainModel(folder).plan()
    tiny.edit(folder, lambda state: state["model.embed_tokens.weight"].mul_(16))
    assert PlainModel(folder).plan().formats.stream > first.formats.stream


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="a margin of -1 bits"):
        Settings(margin=-1)


def test_weights_beyond_their_limit_are_refused(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path)
    tiny.edit(folder, lambda state: state["model.layers.1.self_attn.v_proj.weight"].fill_(200.0))
    with pytest.raises(RangeError, match=r"v_proj\.weight holds a 2\d\d"):
        PlainModel(folder).plan()


def test_a_plan_is_made_anew_where_none_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder that is a file, as good as one that nobody may write to."""
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tiny.llama(tmp_path / "model", num_hidden_layers=1)
    assert PlainModel(folder).plan() == PlainModel(folder).plan()
    assert plan_cache.folder() is None
