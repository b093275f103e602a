"""`puma rank`: texts in the order of how well they answer a query."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from puma.cli import ui
from puma.cli.generation import read
from puma.cli.options import FITTED, HUMAN, Count, Fitting, Flag, Output, Profile
from puma.cli.where import HERE, Where, opened
from puma.errors import UsageError

Cutting = Literal["longest_first", "only_first", "only_second", "refuse"]


def rank(
    model: str,
    /,
    *more: str,
    texts: Path | None = None,
    top: Count | None = None,
    label: str | None = None,
    raw: Flag = False,
    cut: Cutting = "longest_first",
    lengths: Literal["public", "secret"] = "public",
    approximation: Profile = "spline",
    fitting: Fitting = FITTED,
    where: Where = HERE,
    output: Output = HUMAN,
) -> None:
    """Rank texts by how well they answer a query, by a cross-encoder, which reads the query and each text together.

    Parameters
    ----------
    model
        A folder or a hub name of a model with a head for classes, or for choices; with --cluster the query.
    more
        The query, and the texts. Texts may also come in a file, or on standard input, one in each line.
    texts
        A file with a text in each line.
    top
        Show so many of the best; all unless given.
    label
        Of a model with several labels, the one whose score counts.
    raw
        Show logits instead of scores.
    cut
        What becomes of a query and a text that are together longer than the model takes: whichever is longer loses its
        end (longest_first), or always the query (only_first) or the text (only_second), or they are refused.
    lengths
        secret: the parties learn a common length of all pairs only; for models without token types.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    """
    where.check()
    source, words = (model, list(more)) if where.cluster is None else (None, [model, *more])
    if not words:
        raise UsageError("puma rank needs QUERY", "pass it after the model, and then the texts")
    query, found = words[0], _texts(words[1:], texts)
    how: Any = "" if cut == "refuse" else cut

    def check(clear: Any) -> None:
        for text in found:
            clear.pieces(query, text, how)

    with ui.progress(output.json) as progress:
        cluster, _ = opened(where, source, check, progress, None, approximation, fitting=fitting)
        with cluster:
            ranked = cluster.rank(query, found, top, label, how, raw, lengths, progress=progress)
            cost = cluster.cost
    if output.json:
        results = [{"index": r.index, "score": r.score, "text": r.text} | _cut(r.cut) for r in ranked]
        spent = {"seconds": cost.seconds, "rounds": cost.rounds, "bytes": cost.bytes()}
        ui.answer({"query": query, "results": results} | spent | ui.profile(approximation) | ui.doubtful(cluster))
        return
    for each in ranked:
        ui.say(f"{each.score:9.4f}  {each.index + 1:>4}  {each.text}{'  (cut)' if each.cut else ''}")
    if any(each.cut for each in ranked):
        ui.note("note: what is marked was longer than the model takes, and its end was not read; see --cut")
    ui.say(ui.cost_line(cost, texts=len(found)))
    where.say_local()


def _cut(cut: bool) -> dict[str, bool]:
    return {"cut": True} if cut else {}


def _texts(words: list[str], file: Path | None) -> list[str]:
    """The texts: of the command line, or a file's lines, or those of standard input if there is nothing else."""
    if words and file is not None:
        raise UsageError("--texts takes the place of TEXT", "leave out one of them")
    if words:
        return words
    if file is not None:
        return read(file)
    if sys.stdin.isatty():
        raise UsageError("there is no text to rank", "pass at least one, or --texts FILE, or pipe them in")
    found = [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not found:
        raise UsageError("there is no text to rank", "write one in each line of standard input")
    return found
