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
    rows = [
        *_chats(r["chats"], "in the clear"),
        ["largest error of a logit", f"{text['max_logit_error']:.2g} ({text['tokens']:,} tokens)"],
        ["mean Kullback-Leibler divergence", f"{text['kl']:.1e}"],
        ["same likeliest next token", f"{100 * text['agree']:.2f} %"],
        [f"greedy tokens of {r['long'][0]['tokens']} until they part", str(r["long"][0]["same"])],
    ]
    if r.get("parties"):
        rows += _chats(r["parties"], "by three parties")
    return table(("SmolLM2-135M-Instruct", "by its plan"), rows)


def _chats(rows: list[dict[str, Any]], how: str) -> list[list[str]]:
    same = sum(row["same"] == row["tokens"] for row in rows)
    gaps = [row["gap"] for row in rows if "gap" in row]
    return [
        [f"chats whose {rows[0]['tokens']} greedy tokens {how} are plaintext's", f"{same} of {len(rows)}"],
        ["plaintext's best two logits where others part", ", ".join(f"{gap:.2g}" for gap in gaps) or "none parts"],
    ]


def alarms(results: list[dict[str, Any]]) -> str:
    """A row for each real model."""
    heads = ("model", "texts", "tokens", "places that are proven", "texts flagged", "seconds")
    rows = [
        [r["model"], f"{r['texts']:,}", f"{r['tokens']:,}", f"{r['proven']} of {r['places']}", str(r["flagged"]),
         f"{r['seconds']:,.0f}"]
        for r in results
    ]  # fmt: skip
    return table(heads, rows)


def missed(results: list[dict[str, Any]]) -> str:
    """A row for each factor."""
    heads = (
        "times as far as calibrated",
        "checkpoints",
        "refused before",
        "flagged",
        "wrong",
        "wrong and not flagged",
        "false alarms",
    )
    rows = [
        [f"{r['times']:,.0f}", str(r["checkpoints"]), str(len(r["refused"])), str(r["flagged"]), str(r["wrong"]),
         str(len(r["missed"])), str(r["false"])]
        for r in results
    ]  # fmt: skip
    return table(heads, rows)


NAMES = {"spline": "ours", "puma": "PUMA", "mpcformer": "MPCFormer"}


def _evaluated(counted: str, figure: str, key: str, more: dict[str, Callable[[Any], str]]) -> Callable[[Any], str]:
    """A table of one task: a row for each profile, in the clear and by three parties."""

    def rows_of(results: list[dict[str, Any]]) -> str:
        heads = ["computed by", counted, f"plaintext {figure}", "the profile in float", "secure", "difference", *more]
        rows = []
        for r in results:
            name = f"{NAMES[r['profile']]}, {'clear' if r['clear'] else 'three parties'}"
            if "error" in r:
                rows.append([name, f"none: {r['error']['message']}", *("" for _ in heads[2:])])
                continue
            plain, secure = r["plaintext"][key], r["secure"][key]
            number = f"{r['examples']:,}" + (f" ({r['difference']['tokens']:,} tokens)" if key == "perplexity" else "")
            away = secure / plain - 1 if key == "perplexity" else secure - plain
            row = [name, number, f"{plain:.4f}"]
            row += [f"{r['approximated'][key]:.4f}" if "approximated" in r else "", f"{secure:.4f}"]
            row += [f"{100 * away:+.3f} %" if key == "perplexity" else "0" if not away else f"{away:+.1g}"]
            rows.append([*row, *(show(r) for show in more.values())])
        return table(heads, rows)

    return rows_of


def _of_difference(key: str, form: str) -> Callable[[Any], str]:
    return lambda r: form.format(r["difference"][key]).replace("%", " %")


def _gaps(r: Any) -> str:
    return ", ".join(f"{gap:.2g}" for gap in r["difference"]["gaps_where_they_part"][:3]) or "none"


_classified = _evaluated(
    "examples", "accuracy", "accuracy",
    {
        "Matthews": lambda r: f"{r['secure']['matthews']:.4f} (of {r['plaintext']['matthews']:.4f})",
        "same class": _of_difference("agreement", "{:.2%}"),
        "largest error of a logit": _of_difference("max_logit_error", "{:.2g}"),
    },
)  # fmt: skip
_compared = _evaluated(
    "pairs", "Spearman", "spearman", {"largest error of a cosine": _of_difference("max_cosine_error", "{:.2g}")}
)
_predicted = _evaluated(
    "stories", "perplexity", "perplexity",
    {
        "same top-1": _of_difference("top1_agreement", "{:.2%}"),
        "largest error of a logit": _of_difference("max_logit_error", "{:.2g}"),
        "KL divergence": _of_difference("kl", "{:.1e}"),
    },
)  # fmt: skip
_generated = _evaluated(
    "examples", "exact match", "exact_match",
    {
        "all tokens the same": _of_difference("agreement", "{:.2%}"),
        "shortest agreement": _of_difference("least_agreement_length", "{}"),
        "largest gaps where they part": _gaps,
    },
)  # fmt: skip

TABLES: dict[str, Callable[[Any], str]] = {
    "published": published, "smollm2": smollm2, "alarms": alarms, "missed": missed, "sst2": _classified,
    "mnist": _classified, "stsb": _compared, "stories": _predicted, "begun": _generated, "adder": _generated,
    "sort": _generated,
}  # fmt: skip
