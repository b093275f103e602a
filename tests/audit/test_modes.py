"""Honest parties are not accused whatever is asked, and by whichever plan; what no canary is like is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from puma.client.canaries.asking import ask_like, usual
from puma.client.session import Session
from puma.nn.variants import QUICK, VARIANTS, title
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Encode, Generate, Input, Pace
from tests.audit.trio import canary_of
from tests.models import tiny, zoo

pytestmark = pytest.mark.masks_again  # an auditor shares the model again, in this process
Ask = Callable[[Session], None]


def like(*said: Any) -> Ask:
    """A request of which this was said in public, by the plan that it names."""

    def ask(session: Session) -> None:
        session.variants = title(said[0].input.quick)
        ask_like(session, said)

    return ask


def as_usual(variants: str) -> Ask:
    def ask(session: Session) -> None:
        session.variants = variants
        ask_like(session, usual(session.served, 3, 2))

    return ask


def both(session: Session) -> None:
    """Two requests of one session, by two plans."""
    for variants in ("quick", "lean"):
        as_usual(variants)(session)


def quick(*lengths: int, **how: Any) -> Input:
    return Input([*lengths], [], quick=QUICK, **how)


OPEN = {"weights": "open"}
LLAMA: dict[str, tuple[Ask, dict[str, Any]]] = {
    "quick": (like(Generate(quick(3), 2)), {}),
    "quick, several, drawn": (like(Generate(quick(3, 2), 2, temperature=0.7)), {}),
    "quick, padded": (like(Generate(quick(16, padded=True), 2)), {}),
    "quick, paced": (like(Generate(quick(3), 3, paced=True), Pace(True), Pace(False)), {}),
    "quick, chosen": (like(Generate(quick(2), 2, paced=True, reveal=True), Pace(True)), {"reveal_logits": True}),
    "by some functions": (like(Generate(Input([3], [], quick=VARIANTS[::3]), 1)), {}),
    "two requests": (both, {}),
    "open, lean": (like(Generate(Input([3], []), 2)), OPEN),
    "open, quick, drawn": (like(Generate(quick(3, 2), 2, temperature=0.7)), OPEN),
    "open, quick, chosen": (
        like(Generate(quick(2), 2, paced=True, reveal=True), Pace(True)), OPEN | {"reveal_logits": True}
    ),
    "two dealers, quick": (like(Generate(quick(3), 2)), {"dealers": 2}),
    "two dealers, open": (like(Generate(Input([3], []), 1)), OPEN | {"dealers": 2}),
}  # fmt: skip
SLOW: dict[str, tuple[Ask, dict[str, Any]]] = {
    "puma": (as_usual("lean"), {"approximation": "puma"}),
    "mpcformer": (as_usual("lean"), {"approximation": "mpcformer"}),
}
SLOW |= {name: LLAMA.pop(name) for name in ("two requests", "open, quick, chosen", "by some functions")}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1))


@pytest.mark.parametrize(
    ("ask", "how"),
    [*LLAMA.values(), *[pytest.param(*each, marks=pytest.mark.slow) for each in SLOW.values()]],
    ids=[*LLAMA, *SLOW],
)
def test_a_generation_is_not_accused(ask: Ask, how: dict[str, Any], llama: PlainModel) -> None:
    report = canary_of(llama, ask, **how)
    assert report.findings == [] and report.expected.outputs[0]
    assert (report.public is not None) == (how.get("weights") == "open")


BERT: dict[str, tuple[Ask, dict[str, Any]]] = {
    "quick, pooled": (like(Encode(quick(3, 4), "pooled")), {}),
    "quick, hidden, padded": (like(Encode(quick(16, padded=True), "hidden")), {}),
    "quick, two segments": (like(Encode(quick(3, 4, types=[0, 0, 1, 0, 0, 0, 1]), "pooled")), {}),
    "open, quick, hidden": (like(Encode(quick(3), "hidden")), OPEN),
    "two dealers, quick": (like(Encode(quick(3), "pooled")), {"dealers": 2}),
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.bert(tmp_path_factory.mktemp("bert"), num_hidden_layers=1))


@pytest.mark.parametrize(("ask", "how"), BERT.values(), ids=[*BERT])
def test_an_encoding_is_not_accused(ask: Ask, how: dict[str, Any], bert: PlainModel) -> None:
    report = canary_of(bert, ask, **how)
    assert report.findings == [] and report.expected.outputs[0]


# Texts, images and sound; tables, experts, memories of a fixed size, and decoders that read an encoder.
KINDS = {"vit": "quick", "whisper": "quick"}
SLOWER = [
    "bart",
    "Bert-MaskedLM",
    "mixtral",
    "qwen3.5",
    "gpt-oss",
    "gemma2",
    "deberta",
    "modernbert",
    "m2m100",
    "clip-vision",
    "t5",
    "opt",
]


@pytest.mark.parametrize(("kind", "variants"), KINDS.items(), ids=[*KINDS])
def test_no_kind_of_model_is_accused(kind: str, variants: str, tmp_path: Path) -> None:
    report = canary_of(PlainModel(zoo.write(tmp_path / kind, kind)), as_usual(variants))
    assert report.findings == [] and report.expected.outputs[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, *SLOWER])
def test_no_kind_of_model_is_accused_by_either_plan(kind: str, tmp_path: Path) -> None:
    report = canary_of(PlainModel(zoo.write(tmp_path / kind, kind)), both)
    assert report.findings == [] and report.expected.outputs[1]
