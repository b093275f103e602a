"""`puma eval` and `puma check` on tiny models: every key, going on after a break, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest

from puma.local import cluster as local
from puma.measure.range_check import check, samples
from puma.models.formats import Formats
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.reference.plan import Plan
from puma.reference.planning import planned
from tests.cli.conftest import Run
from tests.measure.test_examples import mnist
from tests.models import plain_torch, tiny
from tests.models.lora.adapters import low, write
from tests.threads import Threads

TABLE = "first\tsecond\tlabel\nthe cat sat\ta dog ran\t0\nit was red\tone day they went\t2\nthe big dog\tthe cat\t1\n"
STORIES = "the cat sat on the mat\n\na big dog ran home and saw it\n\none day\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    table, stories = tmp_path / "table.tsv", tmp_path / "stories.txt"
    table.write_text(TABLE)
    stories.write_text(STORIES)
    return {"table": table, "stories": stories, "records": tmp_path / "records.jsonl"}


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "Trio", lambda _=None, store=None, **kind: Threads(**kind))


def words(task: str, files: dict[str, Path]) -> list[object]:
    if task == "classification":
        return ["--task", task, "--data", files["table"], "--text", "first", "--label", "label"]
    if task == "similarity":
        return ["--task", task, "--data", files["table"], "--text", "first,second", "--label", "label"]
    return ["--task", task, "--data", files["stories"], "--tokens", "4"]


MODEL = {"classification": "classifier", "similarity": "bert", "perplexity": "llama", "generation": "gpt2"}
KEYS = {
    "classification": ({"accuracy", "matthews"}, {"agreement", "max_logit_error"}),
    "similarity": ({"spearman", "pearson"}, {"max_cosine_error"}),
    "perplexity": (
        {"perplexity", "top1"},
        {"perplexity_relative", "tokens", "top1_agreement", "max_logit_error", "kl"},
    ),
    "generation": (
        {"exact_match"},
        {"agreement", "mean_agreement_length", "least_agreement_length", "gaps_where_they_part"},
    ),
}


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("task", MODEL)
def test_each_task_by_three_parties_and_in_the_clear(
    task: str, puma: Run, files: dict[str, Path], checkpoints: dict[str, Path]
) -> None:
    asked = ("eval", checkpoints[MODEL[task]], *words(task, files), "--json")
    for more in ((), ("--clear",)):
        found = puma(*asked, *more).json
        assert list(found)[:5] == ["task", "examples", "plaintext", "secure", "difference"]
        assert (found["task"], found["examples"], found["clear"]) == (task, 3, bool(more)) and found["seconds"] > 0
        measures, compared = KEYS[task]
        assert set(found["plaintext"]) == set(found["secure"]) == measures
        assert set(found["difference"]) == measures | compared
        slack = 0.1 if task == "similarity" else 1e-3  # three cosines close together
        assert all(abs(found["difference"][key]) < slack * (1 + found["plaintext"][key]) for key in measures)
        assert found["difference"].get("max_cosine_error", 0) < 1e-3
    assert found["difference"].get("agreement", 1) == found["difference"].get("top1_agreement", 1) == 1
    out = puma(*asked[:-1], "--clear").out
    assert "measure" in out and "3 examples in the clear" in out


def test_a_profile_is_told_from_fixed_point(puma: Run, files: dict[str, Path], checkpoints: dict[str, Path]) -> None:
    asked = ("eval", checkpoints["llama"], *words("perplexity", files), "--clear", "--approximation", "puma", "--json")
    found = puma(*asked).json
    own, secure = found["approximated"]["perplexity"], found["secure"]["perplexity"]
    assert found["approximation"] == "puma" and abs(own - secure) < abs(own - found["plaintext"]["perplexity"])


def test_it_goes_on_where_it_was_broken_off(
    puma: Run, files: dict[str, Path], checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["eval", checkpoints["llama"], *words("perplexity", files), "--clear", "--json"]
    monkeypatch.setattr("puma.measure.evaluation.BATCH", 1)  # float rounds otherwise in a larger batch
    whole = puma(*asked).json
    asked += ["--resume", files["records"]]
    assert puma(*asked).json["difference"] == whole["difference"]
    lines = files["records"].read_text().splitlines()
    assert len(lines) == 4
    files["records"].write_text("\n".join([*lines[:3], lines[3][:20]]))
    done: list[int] = []
    real = Plain.encode
    monkeypatch.setattr(Plain, "encode", lambda self, ids, *rest: done.append(len(ids)) or real(self, ids, *rest))
    assert puma(*asked).json["difference"] == whole["difference"] and done == [1]
    assert puma(*asked).json["difference"] == whole["difference"] and done == [1]
    ran = puma(*asked, "--approximation", "mpcformer")
    assert ran.code == 2 and "another evaluation" in ran.json["error"]["message"]


@pytest.mark.parametrize(
    ("model", "task", "more", "says"),
    [
        ("bert", "classification", (), "no classification head"),
        ("llama", "similarity", (), "does no similarity"),
        ("classifier", "perplexity", (), "does no perplexity"),
        ("llama", "perplexity", ("--limit", 0), "leaves nothing"),
        ("llama", "generation", ("--limit", -1), "leaves nothing"),
        ("llama", "dance", (), "--task"),
    ],
)
def test_refusals(
    model: str, task: str, more: tuple[object, ...], says: str, puma: Run, files: dict[str, Path],
    checkpoints: dict[str, Path],
) -> None:  # fmt: skip
    ran = puma("eval", checkpoints[model], *words(task, files), *more)
    assert ran.code == 2 and says in ran.err


def test_labels_that_are_none(puma: Run, files: dict[str, Path], checkpoints: dict[str, Path]) -> None:
    files["table"].write_text("text\tlabel\nthe cat\tgreen\n")
    asked = ("--data", files["table"], "--text", "text", "--label", "label", "--clear")
    ran = puma("eval", checkpoints["classifier"], "--task", "classification", *asked)
    assert ran.code == 2 and "green is no class" in ran.err and "bad, fair, good" in ran.err


# -- check ----------------------------------------------------------------------------------------------------------


def test_a_model_that_holds(puma: Run, files: dict[str, Path], checkpoints: dict[str, Path]) -> None:
    for name in ("llama", "classifier"):
        found = puma("check", checkpoints[name], "--json").json
        assert (
            list(found) == ["model", "holds", "texts", "tokens", "places", "cost", "plan", "rules"] and found["holds"]
        )
        assert all(place["used"] < 1 and not place["lost"] for place in found["places"])
        assert any("layer" in place["where"] for place in found["places"])
        assert {place["proven"] for place in found["plan"]["places"]} == {True, False}
        assert 0 < found["cost"]["bytes"] < found["cost"]["default_bytes"]
    ran = puma("check", checkpoints["llama"], "--data", files["stories"])
    assert ran.code == 0 and "holds: no number" in ran.out and "3 texts" in ran.out
    assert len(puma("check", checkpoints["llama"], "--all").out.splitlines()) > len(ran.out.splitlines())
    assert puma("check", checkpoints["llama"], "--data", files["table"], "--text", "first").code == 0


def test_layers_that_are_left_aside_are_told(puma: Run, files: dict[str, Path], tmp_path: Path) -> None:
    def further(state: tiny.State) -> None:
        state.update({name.replace(".0.", ".1."): state[name].clone() for name in list(state) if ".0." in name})

    folder = tiny.edit(tiny.llama(tmp_path / "more", num_hidden_layers=1), further)
    ran = puma("check", folder, "--data", files["stories"])
    assert ran.code == 0 and "9 tensors, model.layers.1." in ran.err and "left aside" in ran.err


def test_the_plan_is_shown(puma: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    ran = puma("check", checkpoints["llama"], "--margin", "2")
    assert "with a margin of 2 bits, and by proofs for" in ran.out and "beside the usual formats" in ran.out
    assert "all layers" in ran.out and "model.layers.*.mlp.gate_proj" in ran.out
    (tmp_path / "own.txt").write_text("the cat sat\n\nthe dog ran on the mat\n")
    own, usual, coarse = (
        puma("check", checkpoints["llama"], "--json", *more).json["plan"]
        for more in (("--calibrate", tmp_path / "own.txt"), (), ("--coarse",))
    )
    assert own["texts"] == usual["texts"] + 2 and coarse["coarse"]
    gates = {reach for name, reach in coarse["formats"]["places"].items() if name.endswith("gate_proj")}
    assert len(gates) == 1


def test_a_text_may_be_named(puma: Run, checkpoints: dict[str, Path]) -> None:
    assert puma("check", checkpoints["llama"], "--text", "the cat sat", "--json").json["texts"] == 1


def test_a_model_under_an_adapter(
    puma: Run, checkpoints: dict[str, Path], files: dict[str, Path], tmp_path: Path
) -> None:
    """Checked, and evaluated under a name of its own; where it breaks the range of numbers, that shows."""
    module = "model.layers.0.self_attn.q_proj"
    adapter = write(tmp_path / "mine", low(module, 24, 24))
    assert puma("check", checkpoints["llama"], "--adapter", adapter, "--json").json["model"].endswith("+mine")
    command = ["eval", checkpoints["llama"], "--clear", *words("generation", files), "--resume", files["records"]]
    assert puma(*command, "--adapter", adapter).code == 0
    ran = puma(*command)
    assert ran.code and str(files["records"]) in ran.err  # the records are of another model
    wild = {name: 1e4 * tensor for name, tensor in low(module, 24, 24).items()}
    ran = puma("check", checkpoints["llama"], "--adapter", write(tmp_path / "wild", wild))
    assert ran.code == puma("check", checkpoints["llama"], "--adapter", tmp_path / "nowhere").code == 3, ran


def test_a_model_that_does_not_hold(puma: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the usual formats; the run finds it and names the matrix."""

    def usual(*given: Any) -> Plan:
        return msgspec.structs.replace(planned(*given), formats=Formats())

    monkeypatch.setattr("puma.reference.plain_model.planned", usual)

    def spoil(state: dict[str, Any]) -> None:
        state["model.layers.1.mlp.down_proj.weight"].fill_(100.0)
        state["model.layers.1.mlp.gate_proj.weight"] *= 10
        state["model.layers.1.mlp.up_proj.weight"] *= 10

    folder = tiny.edit(tiny.llama(tmp_path / "model"), spoil)
    ran = puma("check", folder)
    assert ran.code == 3 and "does not hold: the first place is model.layers.1.mlp.down_proj" in ran.out
    found = puma("check", folder, "--json")
    assert found.code == 3 and not found.json["holds"]
    monkeypatch.undo()
    assert puma("check", folder).code == 0  # the plan follows the model


def test_a_model_that_no_ring_holds(puma: Run, tmp_path: Path) -> None:
    def spoil(state: dict[str, Any]) -> None:
        state["model.layers.0.mlp.down_proj.weight"].fill_(100.0)
        for part in ("gate_proj", "up_proj"):
            state[f"model.layers.0.mlp.{part}.weight"].fill_(70.0)

    ran = puma("check", tiny.edit(tiny.llama(tmp_path / "model"), spoil), "--margin", "8")
    assert ran.code == 3 and "beyond what rings hold" in ran.err


def test_texts_are_cut_to_the_context(checkpoints: dict[str, Path]) -> None:
    clear = PlainModel(checkpoints["gpt2"])
    (tokens,) = samples(clear, ["the " * 99])
    assert len(tokens.ids) == 32
    found = check(clear, clear.plan(), [tokens])
    assert found.tokens == 32 and not found.broken
    assert math.isclose(found.notes[0].used, found.notes[0].largest / found.notes[0].limit)


@pytest.mark.usefixtures("threads")
def test_images(puma: Run, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    plain_torch.write(folder)
    images, labels = mnist(tmp_path, numpy.arange(180, dtype=numpy.uint8).reshape(5, 6, 6), bytes(range(5)))
    asked = ("eval", folder, "--task", "classification", "--data", images, "--label", labels, "--json")
    for more in ((), ("--clear",)):
        found = puma(*asked, *more).json
        assert found["examples"] == 5 and found["difference"]["agreement"] == 1
        assert found["difference"]["max_logit_error"] < 0.006
    for i in range(3):
        numpy.save(tmp_path / f"{i}.npy", numpy.full((6, 6), 80 * i, dtype=numpy.uint8))
    table = tmp_path / "images.csv"
    table.write_text("file,class\n" + "".join(f"{i}.npy,{i}\n" for i in range(3)))
    found = puma(*asked[:4], "--data", table, "--text", "file", "--label", "class", "--clear", "--json").json
    assert found["examples"] == 3
    for task in ("perplexity", "similarity"):
        refused = puma("eval", folder, "--task", task, "--data", table, "--text", "file", "--label", "class")
        assert refused.code == 2 and f"does no {task}" in refused.err
