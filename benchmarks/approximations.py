"""Each function by each profile: errors over its range in float and in fixed point, bits and rounds; a page, a plot.

    python -m benchmarks.approximations [--out DIR]

Fixed point is the computation in the clear, which three parties give up to a unit of the last place; bits and rounds
are what the primitives declare, for tests hold the ledger against that.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import record
from puma.mpc.clear import Clear, ClearParty, held
from puma.mpc.cost import Cost
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT, formatted
from puma.mpc.party import Party
from puma.mpc.share import Additive
from puma.nn import functional as F
from puma.nn import paper

POINTS = 40_001
COLUMNS = 128  # of a softmax
ROWS = 200
TITLES = {"spline": "ours", "puma": "PUMA", "mpcformer": "MPCFormer"}


@dataclass(frozen=True)
class Function:
    """Where it is looked at, how it is called, and which profiles have one of their own."""

    title: str
    low: float
    high: float
    call: Callable[[Any], Any]
    profiles: tuple[str, ...] = ("spline", "puma")

    @property
    def inputs(self) -> Tensor:
        """Words of ACTIVATION + WEIGHT fraction bits: a row over the range, or rows of scores."""
        if self.title == "softmax":
            draw = torch.Generator().manual_seed(11)
            x = torch.randn(ROWS, COLUMNS, generator=draw, dtype=torch.float64) * 2
            return x.clamp(self.low, self.high)
        return torch.linspace(self.low, self.high, POINTS, dtype=torch.float64)


def _softmax(x: Any) -> Any:
    return F.softmax(x, MASK)


MASK = torch.ones(COLUMNS, dtype=torch.bool)
FUNCTIONS = {
    "gelu": Function("GeLU", -10, 10, F.gelu, ("spline", "puma", "mpcformer")),
    "silu": Function("SiLU", -10, 10, F.silu),
    "exp": Function("exp", -20, 0, F.exp),
    "softmax": Function("softmax", -8, 8, _softmax, ("spline", "puma", "mpcformer")),
}


def fixed(function: Function, profile: str) -> Tensor:
    """The function in fixed point, of untruncated products, as in a model."""
    party = ClearParty(profile)
    words = torch.round(function.inputs * 2.0 ** (ACTIVATION + WEIGHT)).long()
    result = function.call(held(party, words, RING, ACTIVATION + WEIGHT).additive())
    if isinstance(result, Additive):
        (result,) = party.run(formatted((result, ACTIVATION, RING - ACTIVATION)))
    assert isinstance(result, Clear)
    return result.value


def counted(function: Function, profile: str) -> Cost:
    """Rounds and bits of all parties together, by a dry run of each."""
    parties = [Party(rank) for rank in range(3)]
    for party in parties:
        party.approximation = profile
        function.call(Additive(party, party.nothing(function.inputs.shape), RING, ACTIVATION + WEIGHT, dealt=True))
    totals = [party.ledger.total() for party in parties]
    return Cost(totals[1].rounds, 8 * sum(t.online for t in totals), 8 * sum(t.offline for t in totals))


def measured(name: str, profile: str) -> dict[str, Any]:
    """Errors against the exact function, the profile's own in float beside those of fixed point, and the cost."""
    function = FUNCTIONS[name]
    x = function.inputs
    exact = function.call(x)
    own = function.call(paper.marked(x, profile)).as_subclass(Tensor)
    error, total = (own - exact).abs(), (fixed(function, profile) - exact).abs()
    cost = counted(function, profile)
    return {
        "own_max": float(error.max()), "own_mean": float(error.mean()),
        "max": float(total.max()), "mean": float(total.mean()), "rounds": cost.rounds,
        "online_bits": cost.online / x.numel(), "offline_bits": cost.offline / x.numel(),
    }  # fmt: skip


def table(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """All of it in Markdown."""
    lines = [
        "| function | range | profile | in float: largest, mean error | in fixed point: largest, mean error "
        "| bits online + offline | rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, profiles in found.items():
        function = FUNCTIONS[name]
        reach = f"{ROWS} rows of {COLUMNS}" if name == "softmax" else f"[{function.low:g}, {function.high:g}]"
        for profile, f in profiles.items():
            own = "exact" if profile == "spline" else f"{f['own_max']:.3g}, {f['own_mean']:.2g}"
            lines.append(
                f"| {function.title} | {reach} | {TITLES[profile]} | {own} | {f['max']:.3g}, {f['mean']:.2g} "
                f"| {f['online_bits']:,.0f} + {f['offline_bits']:,.0f} | {f['rounds']} |"
            )
    return "\n".join(lines)


PAGE = """# Approximations

What a session computes in place of GeLU, SiLU, exp and softmax, by *profile*: `spline` (ours), `puma` (the paper's
piecewise polynomials and (1 + x/32)^32) and `mpcformer` (Quad GeLU and 2Quad). A profile is chosen for a session with
`--approximation`; [protocol.md](protocol.md), section 9, has the formulas. This page is made by
`python -m benchmarks.approximations`.

Errors are against the exact function. "In float" is the profile's own function without fixed point; ours is a table of
lines that exists in fixed point only. Bits are those of all parties, for an element of an untruncated product, with
its opening; a softmax's are for an entry of its rows, whose scores have a deviation of 2.

{table}

- PUMA's largest errors are where its pieces meet: GeLU at 3, SiLU at 4; exp near -2.
- MPCFormer's functions are no approximations of GeLU and softmax but stand-ins, for models that are trained again
  with them. It names no SiLU or exp; its profile has ours.
- SPU's implementation of PUMA's functions needs 7,360 bits and 56 rounds for a GeLU, 6,720 and 51 for a SiLU.

![functions and errors](plots/approximations.png)
"""


def draw(path: Path) -> None:
    """Each function with its profiles, and below the errors."""
    from benchmarks import plots

    with plots.pyplot.rc_context(plots.STYLE):
        figure, axes = plots.pyplot.subplots(2, 3, figsize=(7.2, 4.2), layout="constrained", sharex="col")
        for column, name in enumerate(("gelu", "silu", "exp")):
            function, (above, below) = FUNCTIONS[name], axes[:, column]
            x = function.inputs
            exact = function.call(x)
            above.plot(x, exact, color=plots.INK, linewidth=2.4, alpha=0.35, label="exact")
            for profile, colour in zip(function.profiles, (plots.LINE, plots.SECOND, "#f2a541")):
                values = fixed(function, profile)
                above.plot(x, values, color=colour, linewidth=0.9, label=TITLES[profile])
                below.plot(x, (values - exact).abs().clamp(min=1e-6), color=colour, linewidth=0.6)
            above.set_ylim(float(exact.min()) - 0.3, min(float(exact.max()), 4) + 0.2)
            above.set_title(function.title, loc="left")
            below.set_yscale("log")
            below.set_ylim(1e-5, 1)
        axes[1, 0].set_ylabel("error")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        plots.save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.approximations", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="a folder for page and plot, instead of docs")
    parser.add_argument("--json", action="store_true", help="print the figures and write nothing")
    options = parser.parse_args()
    found = {name: {p: measured(name, p) for p in f.profiles} for name, f in FUNCTIONS.items()}
    if options.json:
        print(json.dumps(found))
        return
    out = options.out or record.ROOT / "docs"
    draw(out / "plots" / "approximations.png")
    (out / "approximations.md").write_text(PAGE.format(table=table(found)))


if __name__ == "__main__":
    main()
