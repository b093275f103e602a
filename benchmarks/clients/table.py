"""The tables of clients that ask at the same time, for the page."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import seconds, table


def clients(results: dict[str, Any]) -> str:
    """A line for each kind of client; then the newcomer and the chat."""
    heads = ["work", "network", "clients", "one alone s", "all together s", "a second, all", "times one alone"]
    heads += ["these cores allow", "runs"]
    rows = []
    for r in results["cases"]:
        encodes = r["unit"] == "sentences"
        what = f"a text of {r['tokens']} tokens" if encodes else f"{r['tokens']} new tokens"
        rate = r["clients"] * (1 if encodes else r["tokens"]) / r["together_seconds"]
        row = [f"{r['title']}, {what}", r["network"], str(r["clients"]), seconds(r["alone_seconds"])]
        row += [seconds(r["together_seconds"]), f"{rate:.1f} {r['unit']}", f"{r['ratio']:.1f}"]
        row.append(f"{r['most']:.1f}" if r["most"] else "")
        rows.append([*row, str(r["runs"])])
    new, chat = results["newcomer"], results["chat"]
    first, second = seconds(chat["first_seconds"]), seconds(chat["second_seconds"])
    more = [
        [f"a newcomer beside {new['others']} others", f"{seconds(new['seconds'])}, {new['steps']} of their steps"],
        [f"a chat's first turn, {chat['before']} tokens", first],
        ["its second turn, 16 tokens more", f"{second}, {chat['ratio']:.2f} of the first's"],
    ]
    return f"{table(heads, rows)}\n\n{table(('embedded model', 's to the first token'), more)}"
