"""The page of tables, and the README's two facts and table: measurements between markers, the prose left alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.alone.table import threads
from benchmarks.clients.table import clients
from benchmarks.markdown import seconds, table

PAGE = record.ROOT / "docs" / "benchmarks.md"
README = record.ROOT / "README.md"
BERT, TOKEN, TOKENS = "BERT-base, 128 tokens", "LLaMA-7B, 8 in, 1 out", "LLaMA-7B, 8 in, 2 out"
LAYER = "BERT-base's layer, 128 tokens"  # beside SPU
NAMES = {"minilm-l6": "sentences, MiniLM-L6", "ms-marco-minilm-l6": "pairs ranked, ms-marco MiniLM-L6"}
KINDS = {"models": "AVX-512", "models_avx2": "AVX2 alone"}
PARTS = (
    "models",
    "models_avx2",
    "plain",
    "functions",
    "kernels",
    "links",
    "networks",
    "far",
    "stack",
    "phases",
    "batch",
    "lengths",
    "sentences",
    "threads",
    "clients",
    "drafts",
    "receipts",
    "open",
    "spu",
)


def write(results: Path, folder: Path) -> None:
    """Fill in all parts measured so far: the page and plots/ in `folder`."""
    measured = read(results)
    (folder / PAGE.name).write_text(tables(measured))
    try:
        from benchmarks import plots
    except ImportError:
        print("no plots: pip install -c constraints.txt '.[bench]' brings matplotlib", file=sys.stderr)
        return
    plots.draw(measured, folder / "plots")


def read(results: Path) -> dict[str, dict[str, Any]]:
    """All parts measured so far, by name."""
    return {part: found for part in PARTS if (found := record.read(results, part))}


def tables(measured: dict[str, dict[str, Any]]) -> str:
    """The page with these parts filled in."""
    text = PAGE.read_text()
    for part, found in measured.items():
        text = filled(text, part, f"{TABLES[part](found['results'])}\n\n{origin(found['about'])}")
    return text


def filled(text: str, part: str, content: str) -> str:
    """The page with new content between this part's markers; raises ValueError if it has none."""
    marked = re.compile(rf"(<!-- measured: {part} -->\n).*?(<!-- /measured -->)", re.DOTALL)
    if not marked.search(text):
        raise ValueError(f"the page has no markers for {part}")
    return marked.sub(lambda m: f"{m[1]}{content}\n{m[2]}", text)


def origin(about: dict[str, Any]) -> str:
    """Where, when and how a table was made."""
    return (
        f"*{about['machine']}, Linux {about['kernel']}, Python {about['python']}, torch {about['torch']}; "
        f"{about['date']}, commit {about['commit']}; `{about['command']}`*"
    )


def models(results: list[dict[str, Any]]) -> str:
    heads = ("model", "seconds", "first token", "processor seconds", "rounds", "GB", "online GB", "largest error")
    heads += ("peak MiB", "runs")
    rows = []
    for m in results:
        name = f"{m['title']}: `{m['command']}`" + (" (one layer's weights in all)" if m.get("repeated_layers") else "")
        if "error" in m:
            rows.append([name, f"not measured: {m['error']}", *[""] * (len(heads) - 2)])
            continue
        error = "" if m["max_error"] is None else f"{m['max_error']:.2g}"
        sent = (_gb(m["bytes"]["total"]), _gb(m["bytes"]["online"]))
        peak = ", ".join(f"{mib:.0f}" for mib in m["peak_rss_mib"])
        took = (
            seconds(m["seconds"]),
            seconds(m["first_seconds"]) if m["first_seconds"] else "",
            seconds(m["cpu_seconds"]),
        )
        rows.append([name, *took, f"{m['rounds']:,}", *sent, error, peak, str(m["runs"])])
    return table(heads, rows)


def plain(results: list[dict[str, Any]]) -> str:
    rows = [[r["title"], f"{r['seconds']:.3g}", str(r["runs"])] for r in results]
    return table(("in the clear", "seconds", "runs"), rows)


def functions(results: dict[str, dict[str, Any]]) -> str:
    heads = ("function", "elements", "processor seconds", "seconds", "bits", "online", "rounds", "largest error")
    rows = [
        [
            f["title"],
            f"{f['elements']:,}",
            f"{f['cpu_seconds']:.3f}",
            f"{f['seconds']:.3f}",
            f"{f['bits']:.0f}",
            f"{f['online_bits']:.0f}",
            str(f["rounds"]),
            f"{f['max_error']:.1e}" + (" *" if f["relative"] else "") if f["max_error"] else "0",
        ]
        for f in results.values()
    ]
    return table(heads, rows)


def kernels(results: dict[str, Any]) -> str:
    parts = []
    for title, rows in results.items():
        if not isinstance(rows, dict) or not all(isinstance(cells, dict) for cells in rows.values()):
            continue
        heads = list(dict.fromkeys(name for cells in rows.values() for name in cells))
        lines = [[row, *(f"{cells[h]:.2f}" if h in cells else "" for h in heads)] for row, cells in rows.items()]
        parts.append(table([title, *heads], lines))
    return "\n\n".join(parts)


def links(results: dict[str, Any]) -> str:
    kinds = [kind for kind, found in results.items() if isinstance(found, dict)]
    rows = [[key, *(f"{results[kind][key]:,.1f}" for kind in kinds)] for key in results[kinds[0]]]
    return table(["between two processes", *kinds], rows)


def networks(results: list[dict[str, Any]]) -> str:
    heads = ("request", "network", "rounds", "measured s", "predicted s", "ratio", "three machines s", "relay's share")
    rows = []
    for r in results:
        tokens = f"{r['prompt']} tokens" if r["tokens"] is None else f"{r['prompt']} in, {r['tokens']} out"
        row = [f"{r['model']}, {tokens}{r.get('how', '')}", r["network"], f"{r['rounds']:,}", seconds(r["seconds"])]
        if "predicted" in r:
            share = r["relay_cpu_seconds"] / (r["cpu_seconds"] + r["relay_cpu_seconds"])
            more = [seconds(r["predicted"]), f"{r['predicted'] / r['seconds']:.2f}", seconds(r["on_three_machines"])]
            row += [*more, f"{100 * share:.0f} %"]
        rows.append([*row, *[""] * (len(heads) - len(row))])
    return table(heads, rows)


def stack(results: dict[str, Any]) -> str:
    heads = ("daemons", "sessions a minute", "first token s", "tokens/s", "tokens/s, 4 sessions")
    heads += ("gateway: first token s", f"gateway: {results['tokens']} tokens s", "runs")
    rows = []
    for r in results["requests"]:
        name = r["network"] + (", TLS" if r["tls"] else ", no TLS")
        row = [name, f"{60 / r['session_seconds']:.1f}", seconds(r["first_seconds"]), seconds(r["tokens_a_second"])]
        gateway = [seconds(r[key]) if key in r else "" for key in ("gateway_first_seconds", "gateway_seconds")]
        rows.append([*row, seconds(r["together_a_second"]), *gateway, str(r["runs"])])
    again = [[r["party"], seconds(r["seconds"]), seconds(r["longest"])] for r in results["recovery"]]
    return table(heads, rows) + "\n\n" + table(("killed", "s to the next first token", "longest"), again)


def phases(results: list[dict[str, Any]]) -> str:
    heads = ("request", "at once s", "processor s", "online s", "processor s online", "preparing s", "kept GB")
    heads += ("rounds", "online GB", "runs")
    rows = []
    for r in results:
        row = [f"{r['title']}: `{r['command']}`", *(seconds(r[key]) for key in ("seconds", "cpu_seconds"))]
        row += [seconds(r[key]) for key in ("online_seconds", "online_cpu_seconds", "ahead_seconds")]
        rows.append([*row, _gb(r["kept_bytes"]), f"{r['rounds']:,}", _gb(r["bytes"]), str(r["runs"])])
    return table(heads, rows)


def batch(results: list[dict[str, Any]]) -> str:
    heads = ("prompts in a request", "seconds", "new tokens a second", "rounds", "MB a new token")
    heads += ("processor s a token",)
    rows = []
    for b in results:
        if "error" in b:
            rows.append([str(b["batch"]), f"not measured: {b['error']}", *[""] * (len(heads) - 2)])
            continue
        new = b["batch"] * b["tokens"]
        each = (f"{b['bytes']['total'] / 1e6 / new:.3f}", f"{b['cpu_seconds'] / new:.3f}")
        rows.append([str(b["batch"]), seconds(b["seconds"]), f"{new / b['seconds']:.2f}", f"{b['rounds']:,}", *each])
    return table(heads, rows)


def lengths(results: list[dict[str, Any]]) -> str:
    heads = ("tokens", "seconds", "processor seconds", "rounds", "GB", "online GB")
    rows = []
    for p in results:
        if "error" in p:
            rows.append([str(p["length"]), f"not measured: {p['error']}", *[""] * (len(heads) - 2)])
            continue
        sent = (_gb(p["bytes"]["total"]), _gb(p["bytes"]["online"]))
        rows.append([str(p["length"]), seconds(p["seconds"]), seconds(p["cpu_seconds"]), f"{p['rounds']:,}", *sent])
    return table(heads, rows)


def sentences(results: list[dict[str, Any]]) -> str:
    """A line for each batch; a column for each network."""
    networks = list(dict.fromkeys(r["network"] for r in results))
    heads = ["texts", "tokens", "at a time", *(f"a second, {name}" for name in networks)]
    heads += ["MB each", "processor s each", "rounds"]
    rows = dict[tuple[str, int, int], dict[str, dict[str, Any]]]()
    for r in results:
        rows.setdefault((r["model"], r["tokens"], r["batch"]), {})[r["network"]] = r
    lines = []
    for (model, tokens, batch), by in rows.items():
        one = next(iter(by.values()))
        speeds = [seconds(by[name]["per_second"]) if name in by else "" for name in networks]
        parts = f" in {one['requests']} requests" if one["requests"] > 1 else ""
        row = [f"{NAMES.get(model, model)}", str(tokens), f"{batch}{parts}", *speeds]
        lines.append([*row, f"{one['bytes_each'] / 1e6:.1f}", f"{one['cpu_seconds_each']:.2f}", f"{one['rounds']:,}"])
    return table(heads, lines)


def receipts(results: list[dict[str, Any]]) -> str:
    heads = ("request", "processor seconds", "of these hashing", "share", "frames", "GB hashed", "ms a megabyte")
    rows = []
    for r in results:
        took = [seconds(r["cpu_seconds"]), f"{r['hash_seconds']:.3f}", f"{100 * r['share']:.1f} %"]
        each = f"{1e9 * r['hash_seconds'] / r['bytes']:.2f}"
        rows.append([r["title"], *took, f"{r['frames']:,.0f}", _gb(r["bytes"]), each])
    return table(heads, rows)


def drafts(results: list[dict[str, Any]]) -> str:
    """Tokens a step in the clear, and then what three parties took."""
    clear, secure = ([r for r in results if bool(r.get("secure")) is taken] for taken in (False, True))
    heads = ("model", "asked to", "drafts", "pace", "drafted", "right", "tokens a step")
    rows = [[r["model"], r["kind"], r["draft"], r["pace"], *_drafted(r)] for r in clear]
    more = ("model", "asked to", "network", "drafts", "drafted", "right", "tokens a step", "seconds")
    more += ("tokens a second", "rounds", "MB")
    both = []
    for r in secure:
        took = [seconds(r["seconds"]), f"{r['per_second']:.2f}", f"{r['rounds']:,}", f"{r['bytes'] / 1e6:,.0f}"]
        both.append([r["model"], f"{r['kind']}, {r['tokens']} tokens", r["pace"], r["draft"], *_drafted(r), *took])
    return f"{table(heads, rows)}\n\n{table(more, both)}"


def _drafted(r: dict[str, Any]) -> list[str]:
    return [str(r.get("drafted", "")), str(r.get("accepted", "")), f"{r.get('tokens_a_step', 1.0):.2f}"]


def open_weights(results: dict[str, Any]) -> str:
    """Both kinds of weights beside each other, and the folder."""
    heads = ["request", "seconds, hidden", "open", "ratio", "processor seconds, hidden", "open", "ratio"]
    heads += ["offline ratio", "online ratio", "runs"]
    rows = []
    for case in results["cases"]:
        (a, b), row = (case["hidden"], case["open"]), [f"{case['title']}: `{case['command']}`"]
        for key in ("seconds", "cpu_seconds"):
            row += [seconds(a[key]), seconds(b[key]), f"{b[key] / a[key]:.2f}"]
        row += [f"{b['bytes'][key] / a['bytes'][key]:.2f}" for key in ("offline", "online")]
        rows.append([*row, str(case["runs"])])
    found, gib = results["folder"], 1 << 30
    own = ", ".join(f"{each / gib:.2f}" for each in found["own"])
    opened, first = seconds(found["opened_seconds"]), seconds(found["first_token_seconds"])
    said = (
        f"A folder of LLaMA-7B's shape with {found['layers']} layers, {found['bytes'] / gib:.1f} GiB in bfloat16: "
        f"{opened} s until the parties have opened it, {first} s to the first token. P0, P1 and P2 have {own} GiB of "
        f"their own, and share {found['mapped'] / gib:.1f} GiB that are mapped."
    )
    return f"{table(heads, rows)}\n\n{said}"


def spu(results: list[dict[str, Any]]) -> str:
    heads = ("function", "SPU cpu s", "Puma cpu s", "ratio", "SPU s", "Puma s", "SPU MB", "Puma MB", "SPU error")
    heads += ("Puma's",)
    rows = []
    for r in results:
        both = (r["spu"], r["puma"])
        row = [r["title"], *(f"{b['cpu_seconds']:.3f}" for b in both)]
        row += [f"{both[0]['cpu_seconds'] / both[1]['cpu_seconds']:.1f}", *(f"{b['seconds']:.3f}" for b in both)]
        row += [f"{b['megabytes']:.1f}" for b in both]
        rows.append([*row, *(f"{b['max_error']:.1e}" for b in both)])
    return table(heads, rows)


TABLES: dict[str, Callable[[Any], str]] = {
    "models": models,
    "models_avx2": models,
    "plain": plain,
    "functions": functions,
    "kernels": kernels,
    "links": links,
    "networks": networks,
    "far": networks,
    "stack": stack,
    "phases": phases,
    "batch": batch,
    "lengths": lengths,
    "sentences": sentences,
    "threads": threads,
    "receipts": receipts,
    "clients": clients,
    "drafts": drafts,
    "open": open_weights,
    "spu": spu,
}


def _gb(count: float) -> str:
    return f"{count / 1e9:.3f}"


# -- the README's figures ----------------------------------------------------------------------


def written(measured: dict[str, dict[str, Any]]) -> str:
    """The README with its figures filled in from all parts that they need; unchanged parts stay."""
    text = README.read_text()
    if "models" in measured and "spu" in measured:
        text = filled(text, "facts", facts(measured))
    if "models" in measured:
        text = filled(text, "summary", summary(measured))
    if "sentences" in measured:
        part = measured["sentences"]
        text = filled(text, "sentences", f"{sentences(part['results'])}\n\n{origin(part['about'])}")
    return text


def facts(measured: dict[str, dict[str, Any]]) -> str:
    """The first token of LLaMA-7B, and BERT beside SPU and plaintext, each with the machine it was measured on."""
    kinds = [(KINDS[part], _named(measured[part])) for part in KINDS if part in measured]
    first = " and ".join(f"{found[TOKEN]['seconds']:.0f} s with {kind}" for kind, found in kinds)
    sent = kinds[0][1][TOKEN]["bytes"]["total"] / 1e9
    berts = " and ".join(f"{found[BERT]['seconds']:.1f} s with {kind}" for kind, found in kinds)
    layer = _named(measured["spu"])[LAYER]
    time, traffic = (layer["spu"][key] / layer["puma"][key] for key in ("cpu_seconds", "megabytes"))
    about, times = measured["models"]["about"], _times(measured)
    lines = [
        f"- **The first token of LLaMA-7B takes {first}**, all three parties on one machine with {about['cores']} "
        f"cores, and {sent:.2f} GB of traffic; PUMA's paper, whose title says five minutes, used three machines of "
        "128 threads.",
        f"- **BERT-base over 128 tokens takes {berts}**. Beside SPU, the framework PUMA was written in, one layer "
        f"takes {time:.0f} times less processor time and {traffic:.1f} times less traffic, with smaller errors.",
    ]
    if times:
        lines.append(
            f"- **Plaintext is {times[BERT]:.0f} times as fast for BERT-base, and {times[TOKEN]:.0f} times for the "
            "first token of LLaMA-7B**: torch in float32, on the same cores. A network between parties comes on top."
        )
    return "\n".join(lines)


def summary(measured: dict[str, dict[str, Any]]) -> str:
    """The whole models, a line each, and on machines of the other kind the seconds beside."""
    found, times = measured["models"], _times(measured)
    other = _named(measured["models_avx2"]) if "models_avx2" in measured else {}
    heads = ["work", "seconds", *(["times plaintext"] if times else []), "with AVX2 alone", "processor seconds"]
    heads += ["all traffic", "online", "rounds", "largest error"]
    rows = []
    for m in found["results"]:
        if "error" in m:
            continue
        first = f" ({seconds(m['first_seconds'])} to the first)" if m["first_seconds"] else ""
        slower = [f"{times[m['title']]:.0f}" if m["title"] in times else ""] if times else []
        beside = seconds(other[m["title"]]["seconds"]) if "seconds" in other.get(m["title"], {}) else ""
        sent = [f"{m['bytes'][key] / 1e9:.3f} GB" for key in ("total", "online")]
        row = [f"{m['title']}: `{m['command']}`", seconds(m["seconds"]) + first, *slower, beside]
        rows.append([*row, seconds(m["cpu_seconds"]), *sent, f"{m['rounds']:,}", f"{m['max_error']:.2g}"])
    return f"{table(heads, rows)}\n\n{origin(found['about'])}"


def _times(measured: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times as long as in the clear each model takes, by its title; none unless both were measured."""
    clear, all_ = _named(measured.get("plain", {"results": []})), _named(measured["models"])
    found = {title: all_[title] for title in clear if "seconds" in all_.get(title, {})}
    return {title: each["seconds"] / clear[title]["seconds"] for title, each in found.items()}


def _named(part: dict[str, Any]) -> dict[str, Any]:
    return {result["title"]: result for result in part["results"]}
