"""`puma rank`: texts in the order of how well they answer a query."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from puma.cli import ui
from puma.cli.options import FITTED, HUMAN, Count, Fitting, Flag, Output, Profile
from puma.cli.texts import Cutting, answered, check_kind, cut_fields, given_texts, note_cut, split_words
from puma.cli.where import HERE, Where, opened
from puma.errors import UsageError


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
    source, words = split_words(where, model, more)
    if not words:
        raise UsageError("puma rank needs QUERY", "pass it after the model, and then the texts")
    query, found = words[0], given_texts(words[1:], texts)
    how: Any = "" if cut == "refuse" else cut

    def check(clear: Any) -> None:
        check_kind(("classes", "choice"), clear)
        from puma.client.heads.ranking import read as reads

        reads(clear, query, found, how)

    with ui.progress(output.json) as progress:
        cluster, _ = opened(where, source, check, progress, None, approximation, fitting=fitting)
        with cluster:
            ranked = cluster.rank(query, found, top, label, how, raw, lengths, progress=progress)
            cost = cluster.cost
    where.keep(cluster)
    if output.json:
        results = [{"index": r.index, "score": r.score, "text": r.text} | cut_fields(r.cut) for r in ranked]
        answered({"query": query, "results": results}, cluster, approximation)
        return
    for each in ranked:
        ui.say(f"{each.score:9.4f}  {each.index + 1:>4}  {each.text}{'  (cut)' if each.cut else ''}")
    note_cut(ranked)
    ui.say(ui.cost_line(cost, texts=len(found)))
    where.say_local()
