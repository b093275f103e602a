"""What the README says in figures: two facts and a table, between its markers, from the measurements' files."""

from __future__ import annotations

from typing import Any

from benchmarks import page, record

README = record.ROOT / "README.md"
BERT, TOKEN, TOKENS = "BERT-base, 128 tokens", "LLaMA-7B, 8 in, 1 out", "LLaMA-7B, 8 in, 2 out"
LAYER = "BERT-base's layer, 128 tokens"  # beside SPU
KINDS = {"models": "AVX-512", "models_avx2": "AVX2 alone"}


def write(measured: dict[str, dict[str, Any]]) -> str:
    """The README with its figures filled in from all parts that they need; unchanged parts stay."""
    text = README.read_text()
    if "models" in measured and "spu" in measured:
        text = page.filled(text, "facts", facts(measured))
    if "models" in measured:
        text = page.filled(text, "summary", summary(measured))
    return text


def facts(measured: dict[str, dict[str, Any]]) -> str:
    """The first token of LLaMA-7B, and BERT beside SPU, each with the machine it was measured on."""
    kinds = [(KINDS[part], _named(measured[part])) for part in KINDS if part in measured]
    first = " and ".join(f"{found[TOKEN]['seconds']:.0f} s with {kind}" for kind, found in kinds)
    sent = kinds[0][1][TOKEN]["bytes"]["total"] / 1e9
    berts = " and ".join(f"{found[BERT]['seconds']:.1f} s with {kind}" for kind, found in kinds)
    layer = _named(measured["spu"])[LAYER]
    time, traffic = (layer["spu"][key] / layer["puma"][key] for key in ("cpu_seconds", "megabytes"))
    about = measured["models"]["about"]
    return "\n".join(
        [
            f"- **The first token of LLaMA-7B takes {first}**, all three parties on one machine with {about['cores']} "
            f"cores, and {sent:.2f} GB of traffic; PUMA's paper, whose title says five minutes, used three machines of "
            "128 threads.",
            f"- **BERT-base over 128 tokens takes {berts}**. Beside SPU, the framework PUMA was written in, one layer "
            f"takes {time:.0f} times less processor time and {traffic:.1f} times less traffic, with smaller errors.",
        ]
    )


def summary(measured: dict[str, dict[str, Any]]) -> str:
    """The whole models, a line each, and on machines of the other kind the seconds beside."""
    found = measured["models"]
    other = _named(measured["models_avx2"]) if "models_avx2" in measured else {}
    heads = [
        "work",
        "seconds",
        "with AVX2 alone",
        "processor seconds",
        "all traffic",
        "online",
        "rounds",
        "largest error",
    ]
    rows = []
    for m in found["results"]:
        if "error" in m:
            continue
        first = f" ({page.seconds(m['first_seconds'])} to the first)" if m["first_seconds"] else ""
        beside = page.seconds(other[m["title"]]["seconds"]) if "seconds" in other.get(m["title"], {}) else ""
        sent = [f"{m['bytes'][key] / 1e9:.3f} GB" for key in ("total", "online")]
        row = [f"{m['title']}: `{m['command']}`", page.seconds(m["seconds"]) + first, beside]
        rows.append([*row, page.seconds(m["cpu_seconds"]), *sent, f"{m['rounds']:,}", f"{m['max_error']:.2g}"])
    return f"{page.table(heads, rows)}\n\n{page.origin(found['about'])}"


def _named(part: dict[str, Any]) -> dict[str, Any]:
    return {result["title"]: result for result in part["results"]}
