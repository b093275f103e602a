"""Checkpoints made up after published figures, held against plaintext by the formats that a plan gives them.

A row for each stretch of layers: what the numbers reach, the formats, and the largest error of a hidden state behind
each layer and the last norm, against the root mean square of its row. Fixed point is the run in the clear.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from torch import Tensor

from benchmarks.accuracy import published
from puma.models import architecture, with_layers
from puma.models.config import Decoder
from puma.models.formats import places
from puma.models.ranges import bounds
from puma.models.text import Tokens
from puma.reference.calibration import observe
from puma.reference.fixed_session import FixedSession
from puma.reference.float_session import Plain
from puma.reference.plan import MARGIN, Calibration, Plan, made

Params = dict[str, Tensor]


def planned(config: Decoder, params: Params, texts: list[list[int]]) -> Plan:
    """The plan of a made-up checkpoint, calibrated on these."""
    given = [Tokens(ids, [0] * len(ids)) for ids in texts]
    watch = observe(config, params, given, lambda what, done, of: None)
    kinds = {name: place.kind for name, place in places(architecture(config).model(config)).items()}
    return made(kinds, bounds(config, params), Calibration(watch, len(given), sum(map(len, texts))), MARGIN)


def measured(name: str, figures: dict[str, Any], stretch: list[published.Layer]) -> dict[str, Any]:
    """One stretch of layers of one model."""
    config, params = published.made(name, figures, stretch)
    ids = list(published.TEXT)
    plan = planned(config, params, [ids])
    config = msgspec.structs.replace(config, formats=plan.formats)
    errors = [error(with_layers(config, count), params, ids) for count in range(1, config.layers + 1)]
    norms = [place for place in plan.places if place.kind == "norm"]
    with torch.no_grad():
        stream = reached(config, params)
    return {
        "model": name, "width": config.hidden_size, "layers": config.layers, "errors": errors,
        "published": [layer.residual for layer in stretch], "reached": stream,
        "stream": plan.formats.stream, "norms": [min(p.reach for p in norms), max(p.reach for p in norms)],
        "margin": min(place.margin for place in plan.places if not place.proven),
    }  # fmt: skip


def error(config: Decoder, params: Params, ids: list[int]) -> float:
    """The largest error of a row's last state, as a root mean square against that of the row."""
    own = {name: params[name] for name in architecture(config).parameters(config)}
    (found,) = FixedSession(config, own).encode([ids], "hidden")
    (plain,) = Plain(config, own).encode([ids], "hidden")
    rows = (found - plain).pow(2).mean(-1).sqrt() / plain.pow(2).mean(-1).sqrt()
    return float(rows.max())


def reached(config: Decoder, params: Params) -> list[list[float]]:
    """Behind each layer the largest number of the stream, and the root mean square of the rows that are not massive."""
    from puma.models import Cache

    found = []
    for count in range(1, config.layers + 1):
        shallow = with_layers(config, count)
        model = architecture(shallow).model(shallow, {n: params[n] for n in architecture(shallow).parameters(shallow)})
        x = model.model(torch.tensor(published.TEXT), Cache(count), ending=False)
        found.append([float(x.abs().max()), float(x[1:].pow(2).mean().sqrt())])
    return found
