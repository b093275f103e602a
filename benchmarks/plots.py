"""The plots, from the measurements' files; one style for all. Needs matplotlib (extra `bench`)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

COMPONENTS = {
    "embedding": "#4c78a8",
    "norm": "#72b7b2",
    "attention": "#e45756",
    "mlp": "#f2a541",
    "head": "#7f63b8",
    "other": "#9d9d9d",
}
INK, LINE, SECOND = "#333333", "#4c78a8", "#e45756"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "text.color": INK,
    "legend.frameon": False,
    "figure.dpi": 110,
    "savefig.dpi": 110,
}


def draw(measured: dict[str, Any], folder: Path) -> list[str]:
    """Draw what has been measured; the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        "time": ("models", lambda r: by_component(r, "seconds", "time by component", _seconds)),
        "traffic": ("models", lambda r: by_component(r, "bytes", "traffic by component", _bytes)),
        "lengths": ("lengths", lengths),
        "batch": ("batch", batch),
        "errors": ("functions", errors),
        "spu": ("spu", beside_spu),
    }
    drawn = []
    with pyplot.rc_context(STYLE):
        for name, (part, plot) in wanted.items():
            figure = plot(measured[part]["results"]) if part in measured else None
            if figure is not None:
                caption(figure, measured[part].get("about"))
                save(figure, folder / f"{name}.png")
                drawn.append(f"{name}.png")
    return drawn


def caption(figure: Figure, about: dict[str, Any] | None) -> None:
    """Below the picture the run that it shows."""
    if about:
        run = f"{about['machine']}; {about['date']}, commit {about['commit']}; {about['command']}"
        figure.supxlabel(run, x=0.01, ha="left", fontsize=6.5, color="#777777")


def save(figure: Figure, path: Path) -> None:
    """A picture of few colours, which takes a third of the bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    Image.open(buffer).convert("RGB").quantize(48).save(path, optimize=True)


def by_component(models: list[dict[str, Any]], key: str, title: str, amount: Any) -> Figure | None:
    """One bar a model, in shares of its total, which stands beside it."""
    models = [m for m in models if "error" not in m][::-1]
    if not models:
        return None
    figure, axes = pyplot.subplots(figsize=(7.2, 0.9 + 0.36 * len(models)), layout="constrained")
    for row, model in enumerate(models):
        parts = {part["name"]: part[key] for part in model["breakdown"]}
        total, left = sum(parts.values()) or 1.0, 0.0
        for name, colour in COMPONENTS.items():
            share = 100 * parts.get(name, 0) / total
            axes.barh(row, share, left=left, color=colour, height=0.66, label=name if row == 0 else None)
            left += share
        axes.text(101, row, amount(total), va="center")
    axes.set_yticks(range(len(models)), [m["title"] for m in models])
    axes.set_xlim(0, 113)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of the total, which stands on the right")
    axes.set_title(title, loc="left")
    figure.legend(loc="outside upper center", ncols=len(COMPONENTS), fontsize=8)
    return figure


def lengths(points: list[dict[str, Any]]) -> Figure | None:
    """Seconds and bytes of BERT-base against the length of its input."""
    points = [p for p in points if "error" not in p]
    if not points:
        return None
    figure, (left, right) = _pair()
    x = [p["length"] for p in points]
    left.plot(x, [p["seconds"] for p in points], "o-", color=LINE, label="seconds")
    left.plot(x, [p["cpu_seconds"] for p in points], "s--", color=SECOND, label="processor seconds, three parties")
    _doubling(left, x, "seconds")
    right.plot(x, [p["bytes"]["total"] / 1e6 for p in points], "o-", color=LINE, label="all traffic")
    right.plot(x, [p["bytes"]["online"] / 1e6 for p in points], "s--", color=SECOND, label="of it online")
    _doubling(right, x, "MB")
    for axes in (left, right):
        axes.set_xlabel("tokens")
    left.set_title("BERT-base", loc="left")
    return figure


def batch(points: list[dict[str, Any]]) -> Figure | None:
    """Tokens a second, and bytes a token, against the number of prompts in a request."""
    points = [p for p in points if "error" not in p]
    if not points:
        return None
    figure, (left, right) = _pair()
    x = [p["batch"] for p in points]
    left.plot(x, [p["batch"] * p["tokens"] / p["seconds"] for p in points], "o-", color=LINE)
    _doubling(left, x, "new tokens a second")
    right.plot(x, [p["bytes"]["total"] / 1e6 / (p["batch"] * p["tokens"]) for p in points], "o-", color=LINE)
    _doubling(right, x, "MB a new token")
    for axes in (left, right):
        axes.set_xlabel("prompts in a request")
        axes.set_ylim(bottom=0)
    left.set_title("embedded model", loc="left")
    return figure


def errors(functions: dict[str, dict[str, Any]]) -> Figure | None:
    """The largest error in each small interval, over the whole range that was measured."""
    curves = {name: f for name, f in functions.items() if "curve" in f}
    if not curves:
        return None
    rows = (len(curves) + 2) // 3
    figure, grid = pyplot.subplots(rows, 3, figsize=(7.2, 1.9 * rows), layout="constrained", squeeze=False)
    for axes, function in zip(grid.flat, curves.values()):
        x, y = zip(*function["curve"])
        axes.plot(x, y, color=LINE, linewidth=0.9)
        axes.fill_between(x, y, color=LINE, alpha=0.15, linewidth=0)
        axes.set_title(function["title"] + (", relative above 1" if function["relative"] else ""), loc="left")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("x")
        axes.set_ylabel("largest error")
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        if function["relative"]:
            axes.set_xscale("log", base=2)
    for axes in list(grid.flat)[len(curves) :]:
        axes.set_visible(False)
    return figure


def beside_spu(results: list[dict[str, Any]]) -> Figure | None:
    """How many times the processor seconds and the traffic of Puma the same functions take in SPU."""
    if not results:
        return None
    figure, (left, right) = _pair(1.1 + 0.26 * len(results))
    rows = range(len(results))[::-1]
    for axes, key, what in ((left, "cpu_seconds", "processor seconds"), (right, "megabytes", "traffic")):
        ratios = [r["spu"][key] / r["puma"][key] for r in results]
        axes.barh(rows, ratios, color=LINE, height=0.66)
        for row, ratio in zip(rows, ratios):
            axes.text(ratio + 0.2, row, f"{ratio:.1f}", va="center", fontsize=8)
        axes.axvline(1, color=SECOND, linewidth=1)
        axes.set_xlim(0, 1.18 * max(ratios))
        axes.set_xlabel(f"{what}: SPU's over Puma's")
        axes.grid(axis="y", visible=False)
    left.set_yticks(rows, [r["title"] for r in results])
    right.set_yticks(rows, [""] * len(results))
    left.set_title("SPU 0.9.5 beside Puma", loc="left")
    return figure


def _pair(height: float = 2.6) -> tuple[Figure, tuple[Axes, Axes]]:
    figure, axes = pyplot.subplots(1, 2, figsize=(7.2, height), layout="constrained")
    return figure, (axes[0], axes[1])


def _doubling(axes: Axes, x: list[int], label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [str(value) for value in x])
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _seconds(x: float) -> str:
    return f"{x:.1f} s"


def _bytes(x: float) -> str:
    return f"{x / 1e9:.2f} GB" if x >= 1e9 else f"{x / 1e6:.0f} MB"
