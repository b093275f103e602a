"""The computation in the clear answers as three parties do, and names the place that leaves its range."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from puma.client.protocol import TokenSession
from puma.errors import InputError, UsageError
from puma.models.checkpoint import load
from puma.reference.fixed_session import FixedSession
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from tests.models import plain_torch, zoo
from tests.threads import Threads

TEXTS = ("the cat sat on the mat", "a dog ran")


def prompts(clear: PlainModel) -> list[list[int]]:
    return [clear.sentence_ids(t).ids if clear.labels else clear.prompt_ids(t, 3) for t in TEXTS]


@pytest.mark.parametrize("profile", ["spline", "puma", "mpcformer"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "classifier"])
def test_it_answers_as_three_parties_do(name: str, profile: str, checkpoints: dict[str, Path]) -> None:
    """Hidden states within 0.006, 98 units of 2^-14: some fifty truncations differ by up to one each, and later
    matrices spread them; 0.0042 is the most that was seen."""
    clear = PlainModel(checkpoints[name])
    alone, ids = FixedSession(clear.config, clear.params, profile), prompts(clear)
    with Threads(approximation=profile) as trio:
        trio.share(clear.config, clear.params)
        secure = trio.session.encode(ids, "hidden")
        if name != "classifier":
            assert list(trio.session.continued(ids, 4)) == list(alone.continued(ids, 4))
    found = alone.encode(ids, "hidden")
    assert [x.shape for x in found] == [x.shape for x in secure]
    assert max(float((x - y).abs().max()) for x, y in zip(found, secure)) < 0.006
    assert all(note.used < 1 for note in alone.notes)
    if profile == "spline":
        plain = Plain(clear.config, clear.params).encode(ids, "hidden")
        assert max(float((x - y).abs().max()) for x, y in zip(found, plain)) < 0.006


@pytest.mark.parametrize("name", [*zoo.CAUSAL, *zoo.SEQ2SEQ, *zoo.ENCODERS])
def test_every_family(name: str, tmp_path: Path) -> None:
    checkpoint, ids = load(zoo.write(tmp_path, name)), [2, 5, 7, 9, 27]
    config, params = checkpoint.config, checkpoint.fold()
    alone = FixedSession(config, params)
    if name in zoo.ENCODERS:
        (found,), (plain,) = (session.encode([ids], "hidden") for session in (alone, Plain(config, params)))
        assert float((found - plain).abs().max()) < 0.006
    else:
        assert list(alone.continued([ids], 3)) == list(Plain(config, params).continued([ids], 3))
    assert all(note.used < 1 for note in alone.notes)


@pytest.mark.parametrize("name", [*zoo.IMAGES, "patches"])
def test_images(name: str, tmp_path: Path) -> None:
    folder = plain_torch.write(tmp_path) if name == "patches" else zoo.write(tmp_path, name)
    checkpoint = load(folder)
    config, params = checkpoint.config, checkpoint.fold()
    given = [torch.randn(config.patches, config.vocab_size) for _ in range(2)]
    alone = FixedSession(config, params)
    found, plain = (session.encode(given, "logits") for session in (alone, Plain(config, params)))
    assert max(float((x - y).abs().max()) for x, y in zip(found, plain, strict=True)) < 0.006
    assert all(note.used < 1 for note in alone.notes)
    with pytest.raises(InputError, match="after normalisation"):
        alone.encode([given[0] * 1000], "logits")


def test_the_place_that_overflows_is_named(checkpoints: dict[str, Path]) -> None:
    clear = PlainModel(checkpoints["llama"])
    params = dict(clear.params)
    params["model.layers.1.mlp.gate_proj.weight"] = params["model.layers.1.mlp.gate_proj.weight"] * 2000
    alone = FixedSession(clear.config, params)
    alone.encode([[1, 5, 7]], "hidden")
    first = next(note for note in alone.notes if note.used >= 1)
    assert (first.where, first.component) == ("model.layers.1.mlp.gate_proj", "mlp")


def test_a_parameter_may_be_another(checkpoints: dict[str, Path]) -> None:
    clear = PlainModel(checkpoints["llama"])
    alias = {n: n.replace(".1.", ".0.") for n in clear.params if ".layers.1." in n}
    same = {n: clear.params[alias.get(n, n)] for n in clear.params}
    own = {n: t for n, t in clear.params.items() if n not in alias}
    alone = FixedSession(clear.config, own, alias=alias)
    ids = [[1, 5, 7]]
    assert torch.equal(alone.encode(ids, "hidden")[0], FixedSession(clear.config, same).encode(ids, "hidden")[0])
    assert any("layers.1" in note.where for note in alone.notes)


def test_it_refuses_what_parties_refuse(checkpoints: dict[str, Path]) -> None:
    clear = PlainModel(checkpoints["llama"])
    with pytest.raises(UsageError, match="context"):
        list(FixedSession(clear.config, clear.params).continued([[1] * 40], 1))


def test_sessions_of_each_kind_fill_the_same_places(tmp_path: Path) -> None:
    clear = PlainModel(zoo.write(tmp_path, "Electra-MaskedLM"))
    ids, places = [[2, 5, 7, 9, 27], [3, 5, 8]], [[1, 4], [0]]
    sessions: list[TokenSession] = [kind(clear.config, clear.params) for kind in (Plain, FixedSession)]
    with Threads() as trio:
        trio.share(clear.config, clear.params)
        found = [session.fill(ids, places, 2) for session in (*sessions, trio.session)]
    assert found[0] == found[1] == found[2]
    assert [[len(ranked) for ranked in prompt] for prompt in found[0]] == [[2, 2], [2]]
    for session in sessions:
        with pytest.raises(InputError, match="not among the tokens"):
            session.fill(ids, [[1], [3]])
