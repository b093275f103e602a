"""The out-of-range flag by a plan: how often it rises for texts of real models, and whether it misses what is wrong.

False alarms: thousands of short texts, and of images, go through the run in the clear, which raises a flag for certain
where three parties do; many in one pass, those of a length together. Missed ones: checkpoints made up after published
figures are driven beyond what they were calibrated on; an answer that is wrong must be flagged.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.accuracy import published, real_width
from puma.errors import InputError, RangeError
from puma.models import images, inputs, text
from puma.models.config import Config
from puma.reference.fixed_session import FixedSession
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel

TEXTS, SHORT = 10_000, 24  # tokens that short texts have at most
AT_ONCE = 4096  # rows of one pass, about
MODELS = ("stories260k-hf", "minilm-hf-fp16", "minilm-sst2-hf", "minigpt-adder-hf", "gpt-nano-sort-hf", "vit-mnist")
TIMES = (16.0, 1024.0)  # how much further than the calibration
BOUND = 2.0**-8


def sentences(data: Path) -> Iterator[str]:
    """Short texts of many kinds: reviews, news, captions, textbook sentences, stories."""
    for name in ("SST-2/dev.tsv", "CoLA/in_domain_dev.tsv", "CoLA/out_of_domain_dev.tsv", "RTE/dev.tsv"):
        for line in (data / "glue" / name).read_text(encoding="utf-8").splitlines()[1:]:
            yield from (cell for cell in line.split("\t") if " " in cell)
    for line in (data / "glue" / "STS-B" / "stsb-en-dev.csv").read_text(encoding="utf-8").splitlines():
        yield line.rpartition(",")[0]
    stories = (data / "tinystories" / "tinystories_val.txt").read_text(encoding="utf-8")
    yield from (part.strip() for part in re.split(r"(?<=[.!?\"])\s+", stories) if part.strip())


def given(name: str, model: PlainModel, data: Path, count: int) -> list[Any]:
    """So many inputs of this model, as token ids, or patches: what it was trained for, if that is not language."""
    if not inputs(model.config).tokenized:
        pixels = images.idx(data / "mnist-test" / "t10k-images-idx3-ubyte.gz", 3)[:count]
        return [model.read(image).ids for image in pixels]
    lines: Iterator[str] = sentences(data)
    if "adder" in name:
        lines = (f"{a:02}{b:02}" for a, b in product(range(100), repeat=2))
    if "sort" in name:
        lines = ("".join(word) for word in product("ABC", repeat=6))
    found: list[Any] = []
    for line in lines:
        try:
            ids = text.encode(model.tokenizer, model.config, line).ids[: min(SHORT, model.config.context)]
        except InputError:  # an alphabet of a few signs has no word of it
            continue
        found.append(ids)
        if len(found) == count:
            break
    return found


def flagged(config: Config, params: Any, rows: Sequence[Any]) -> int:
    """Of how many of these inputs the run in the clear flags something."""
    alone, found, each = FixedSession(config, params), 0, inputs(config)
    order = sorted(rows, key=lambda ids: -len(ids))
    while order:
        length = each.length(len(order[0]))
        count = min(text.MAX_PROMPTS, max(1, AT_ONCE // length))
        here, order = order[:count], order[count:]
        alone.encode(here, "hidden")
        found += len(alone.flagged)
    return found


def false_alarms(data: Path, count: int = TEXTS) -> list[dict[str, Any]]:
    """A row for each real model."""
    rows = []
    for name in MODELS:
        started, model = time.perf_counter(), PlainModel(data / name)
        plan, found = model.plan(), given(name, model, data, count)
        made = time.perf_counter()
        tokens = sum(inputs(model.config).length(len(ids)) for ids in found)
        alarms = flagged(model.config, model.params, found)
        row: dict[str, Any] = {"model": name, "texts": len(found), "tokens": tokens, "flagged": alarms}
        proven = sum(place.proven for place in plan.places)
        row |= {"places": len(plan.places), "proven": proven, "margin": plan.margin}
        rows.append(row | {"seconds": time.perf_counter() - made, "planning": made - started})
    return rows


def driven(name: str, figures: dict[str, Any], stretch: list[published.Layer], times: float) -> dict[str, Any]:
    """A made-up checkpoint on a text that goes so many times beyond its calibration, or why no plan holds it."""
    config, params = published.made(name, figures, stretch, times)
    try:
        plan = real_width.planned(config, params, [list(published.TEXT)])
    except RangeError as error:
        return {"model": name, "times": times, "refused": str(error)}
    config = replace(config, formats=plan.formats)
    alone, ids = FixedSession(config, params), [list(published.BEYOND_TEXT), list(published.TEXT)]
    found, plain = alone.encode(ids, "hidden"), Plain(config, params).encode(ids, "hidden")
    errors = [
        float(((f - p).pow(2).mean(-1).sqrt() / p.pow(2).mean(-1).sqrt()).max())
        for f, p in zip(found, plain, strict=True)
    ]
    alarms: dict[str, Any] = {"flagged": 0 in alone.flagged, "false": 1 in alone.flagged}
    return {"model": name, "times": times, "error": errors[0]} | alarms


def missed(data: Path, quick: bool = False) -> list[dict[str, Any]]:
    """A row for each factor, over all stretches of all models; with `quick` those up to 2048 wide."""
    rows = []
    for times in TIMES:
        made: list[dict[str, Any]] = [
            driven(name, figures, layers, times) | {"stretch": stretch}
            for name, figures in published.read(data / "activations").items()
            for stretch, layers in published.stretches(figures).items()
            if not quick or figures["hidden_size"] <= 2048
        ]
        cases = [case for case in made if "refused" not in case]
        wrong = [case for case in cases if not case["error"] < BOUND]
        rows.append(
            {
                "times": times, "checkpoints": len(made), "refused": [case for case in made if "refused" in case],
                "flagged": sum(case["flagged"] for case in cases),
                "wrong": len(wrong), "missed": [case for case in wrong if not case["flagged"]],
                "false": sum(case["false"] for case in cases),
            }
        )  # fmt: skip
    return rows
