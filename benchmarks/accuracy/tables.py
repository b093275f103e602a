"""The tables of docs/accuracy.md that are made from measurements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from benchmarks.page import table


def published(results: list[dict[str, Any]]) -> str:
    """A row for each stretch of layers of each model."""
    heads = ("made up after", "layers", "width", "largest", "root mean squares", "stream below 2^", "rows below 2^")
    heads += ("largest error of a row", "bound")
    rows = []
    for r in results:
        if "refused" in r:
            reason = f"refused: {r['refused']}"
            rows.append([r["model"], r["stretch"], f"{r['width']:,}", "", "", "", "", reason, "2^-8"])
            continue
        largest, rms = max(reached for reached, _ in r["reached"]), [rms for _, rms in r["reached"]]
        worst, (low, high) = max(r["errors"]), r["norms"]
        row = [r["model"], r["stretch"], f"{r['width']:,}", f"{largest:,.0f}", f"{min(rms):.3g} to {max(rms):.3g}"]
        row += [str(r["stream"]), f"{low} to {high}", f"{worst:.2g} (2^{_log(worst):.1f})", "2^-8"]
        rows.append(row)
    return table(heads, rows)


def _log(value: float) -> float:
    return math.log2(value)


def smollm2(r: dict[str, Any]) -> str:
    """A row for each question, and what the text says."""
    text = r["text"]
    same = sum(row["same"] == row["tokens"] for row in r["chats"])
    gaps = [row["gap"] for row in r["chats"] if "gap" in row]
    rows = [
        ["chats whose 64 greedy tokens are plaintext's", f"{same} of {len(r['chats'])}"],
        ["plaintext's best two logits where others part", ", ".join(f"{gap:.2g}" for gap in gaps) or "none parts"],
        ["largest error of a logit", f"{text['max_logit_error']:.2g} ({text['tokens']:,} tokens)"],
        ["mean Kullback-Leibler divergence", f"{text['kl']:.1e}"],
        ["same likeliest next token", f"{100 * text['agree']:.2f} %"],
        [f"greedy tokens of {r['long'][0]['tokens']} until they part", str(r["long"][0]["same"])],
    ]
    if r.get("parties"):
        done = sum(row["same"] == row["tokens"] for row in r["parties"])
        rows.append(["chats whose 16 tokens by three parties are plaintext's", f"{done} of {len(r['parties'])}"])
    return table(("SmolLM2-135M-Instruct", "by its plan"), rows)


TABLES: dict[str, Callable[[Any], str]] = {"published": published, "smollm2": smollm2}
