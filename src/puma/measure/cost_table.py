"""The table of declared costs in docs/protocol.md: `python -m puma.measure.cost_table` prints it.

It stands above whatever declares a cost, and knows nothing but the declarations.
"""

from __future__ import annotations

from types import ModuleType

from puma.mpc import arithmetic, boolean, compare, fixed, lookup, raising, retrieval, watch
from puma.mpc.cost import DECLARED
from puma.mpc.wide import products
from puma.nn import attention, delta, functional, gates, inverses, mixture, paper, pooling, roots, sampling, splines

ROOMS: tuple[ModuleType, ...] = (
    arithmetic, raising, products, boolean, lookup, watch, compare, fixed, retrieval,
    splines, inverses, roots, paper, attention, functional, sampling, pooling, gates, mixture, delta,
)  # fmt: skip


def table() -> str:
    """Everything that is declared, as a Markdown table, in the order of rooms and of their text."""
    order = [room.__name__.rpartition(".")[2] for room in ROOMS]
    found = sorted(DECLARED.values(), key=lambda d: order.index(d.name.partition(".")[0]))
    lines = ["| primitive | bits an element, all parties together | source |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{d.name}` | {d.formula} | {d.source} |" for d in found)])


if __name__ == "__main__":
    print(table())
