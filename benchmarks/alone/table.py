"""The tables of one party alone, for the page. They must not know how it was measured."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import seconds, table


def threads(results: list[dict[str, Any]]) -> str:
    """A line for each party, and then for each kernel what cores allow.

    The serial part and what it implies are those of the calling thread's processor time.
    """
    parties, kernels = ([r for r in results if ("party" in r) is wanted] for wanted in (True, False))
    most = list(parties[0]["threads"])[-1]
    heads = ["one party alone", "", "1 thread s", f"{most} threads s", "times", "these cores allow"]
    heads += ["calling thread: times", "serial part", *(f"implied, {cores} cores" for cores in parties[0]["implied"])]
    rows = []
    for r in parties:
        times = [seconds(r["threads"][count]["seconds"]) for count in ("1", most)]
        times += [f"{r['ratio']:.2f}", f"{r['allowed']:.2f}" if "allowed" in r else ""]
        rest = [f"{100 * r['own_serial']:.1f} %", *(f"{times_:.1f}" for times_ in r["implied"].values())]
        rows.append([r["title"], r["party"], *times, f"{r['own_ratio']:.2f}", *rest])
    found = table(heads, rows)
    if kernels:
        more = table([f"{most} processes at once", "these cores allow"], _kernels(kernels))
        found = f"{found}\n\n{more}"
    return found


def _kernels(results: list[dict[str, Any]]) -> list[list[str]]:
    return [[r["title"], f"{r['allowed']:.2f}"] for r in results]
