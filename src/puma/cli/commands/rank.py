"""`puma rank`, `puma classify` and `puma answer`: what a head for classes says of texts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from puma.cli import ui
from puma.cli.generation import read
from puma.cli.options import FITTED, HUMAN, Count, Fitting, Flag, Output, Profile, Several
from puma.cli.where import HERE, Where, opened
from puma.errors import UsageError

if TYPE_CHECKING:
    from puma.client.client import Client

Cutting = Literal["longest_first", "only_first", "only_second", "refuse"]
Joining = Literal["none", "simple", "first", "average", "max"]
Own = tuple[tuple[str, ...], str, bool, str | None]  # classes of the client's own, and how they are judged


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
    source, words = _words(where, model, more)
    if not words:
        raise UsageError("puma rank needs QUERY", "pass it after the model, and then the texts")
    query, found = words[0], _texts(words[1:], texts)
    how: Any = "" if cut == "refuse" else cut

    def check(clear: Any) -> None:
        _check(("classes", "choice"), clear)
        from puma.client.heads.ranking import read as reads

        reads(clear, query, found, how)

    with ui.progress(output.json) as progress:
        cluster, _ = opened(where, source, check, progress, None, approximation, fitting=fitting)
        with cluster:
            ranked = cluster.rank(query, found, top, label, how, raw, lengths, progress=progress)
            cost = cluster.cost
    if output.json:
        results = [{"index": r.index, "score": r.score, "text": r.text} | _cut(r.cut) for r in ranked]
        _answer({"query": query, "results": results}, cluster, approximation)
        return
    for each in ranked:
        ui.say(f"{each.score:9.4f}  {each.index + 1:>4}  {each.text}{'  (cut)' if each.cut else ''}")
    _note_cut(ranked)
    ui.say(ui.cost_line(cost, texts=len(found)))
    where.say_local()


def classify(
    model: str,
    /,
    *more: str,
    texts: Path | None = None,
    pairs: Flag = False,
    label: Several = (),
    hypothesis: str = "This example is {}.",
    multi_label: Flag = False,
    entails: str | None = None,
    join: Joining = "simple",
    cut: Cutting = "refuse",
    lengths: Literal["public", "secret"] = "public",
    approximation: Profile = "spline",
    fitting: Fitting = FITTED,
    where: Where = HERE,
    output: Output = HUMAN,
) -> None:
    """Say which of a model's classes texts belong to, or which of your own; of a head for tokens, what texts name.

    Parameters
    ----------
    model
        A folder or a hub name of a model with a head for classes; with --cluster the first text.
    more
        The texts. They may also come in a file, or on standard input, one in each line.
    texts
        A file with a text in each line.
    pairs
        Texts belong together two by two, as a question and a passage.
    label
        A class of your own, several times: how far each fits, by a model that says what follows from a text (NLI).
    hypothesis
        The sentence that has to follow from a text, with the class in place of {}.
    multi_label
        Judge each of your classes by itself.
    entails
        The model's class of texts that something follows from, if its name does not begin with "entail".
    join
        How tokens become parts of a text, as in transformers: neighbours of one class (simple), words that agree before
        (first, average, max), or none.
    cut
        What becomes of a text or a pair that is longer than the model takes: it is refused, or it loses its end.
    lengths
        secret: the parties learn a common length only; for texts without a second one, or models without token types.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    """
    where.check()
    source, words = _words(where, model, more)
    found, how = _texts(words, texts), "" if cut == "refuse" else cut
    if pairs and len(found) % 2:
        raise UsageError(f"{len(found)} texts are no pairs", "pass two at a time, or leave out --pairs")
    asked: list[Any] = list(zip(found[::2], found[1::2], strict=True)) if pairs else found
    if label and pairs:
        raise UsageError("--label makes pairs of its own", "leave out --pairs")
    with ui.progress(output.json) as progress:
        check = partial(_check, ("classes", "tokens"))
        cluster, _ = opened(where, source, check, progress, None, approximation, fitting=fitting)
        with cluster:
            progress("classifying", 0, 1)
            answers = _classes(cluster, asked, (label, hypothesis, multi_label, entails), join, how, lengths)
            cost = cluster.cost
    if output.json:
        _answer({"results": [{"text": text} | said for text, said in answers]}, cluster, approximation)
        return
    for text, said in answers:
        ui.say(text if isinstance(text, str) else " | ".join(text))
        for name, score in zip(said.get("labels", ()), said.get("scores", ()), strict=True):
            ui.say(f"  {name:<16} {score:9.4f}")
        for each in said.get("entities", ()):
            ui.say(f"  {each['label']:<16} {each['score']:9.4f}  {each['text']}")
    ui.say(ui.cost_line(cost, texts=len(answers)))
    where.say_local()


def answer(
    model: str,
    /,
    *more: str,
    text: Path | None = None,
    top: Count = 1,
    longest: Count = 15,
    nothing: Flag = False,
    window: Count = 384,
    stride: Count = 128,
    approximation: Profile = "spline",
    fitting: Fitting = FITTED,
    where: Where = HERE,
    output: Output = HUMAN,
) -> None:
    """Answer a question by quoting a text, by a model with a head for that (ForQuestionAnswering).

    Parameters
    ----------
    model
        A folder or a hub name of such a model; with --cluster the question.
    more
        The question, and the text. The text may also come in a file, or on standard input.
    text
        A file that holds the text.
    top
        Show so many of the best answers.
    longest
        Tokens of an answer, at most.
    nothing
        That there is no answer is one, too; for models that were trained so.
    window
        Tokens of the pieces in which a text is read that is longer.
    stride
        Tokens that two such pieces have in common.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    """
    where.check()
    source, words = _words(where, model, more)
    if not words or len(words) > 2:
        raise UsageError("puma answer needs QUESTION and TEXT", "pass both after the model, a text in quotes")
    question, whole = words[0], _whole(words[1:], text)
    with ui.progress(output.json) as progress:
        cluster, _ = opened(where, source, partial(_check, ("span",)), progress, None, approximation, fitting=fitting)
        with cluster:
            progress("answering", 0, 1)
            found = cluster.answer(question, whole, top, longest, nothing, window, stride)
            cost = cluster.cost
    if output.json:
        answers = [{"answer": q.text, "score": q.score, "start": q.start, "end": q.end} for q in found]
        _answer({"question": question, "answers": answers}, cluster, approximation)
        return
    for each in found:
        ui.say(f"{each.score:9.4f}  {each.text or '(no answer)'}")
    ui.say(ui.cost_line(cost, texts=1))
    where.say_local()


def _words(where: Where, model: str, more: Sequence[str]) -> tuple[str | None, list[str]]:
    """The model on this machine, and the other words; a cluster's client names its model elsewhere."""
    return (model, list(more)) if where.cluster is None else (None, [model, *more])


def _check(kinds: Sequence[Any], clear: Any) -> None:
    """UsageError, before parties start, for a model whose head is of none of these kinds."""
    from puma.client.heads.asking import check_kind

    check_kind(clear, *kinds)


def _answer(content: dict[str, Any], cluster: Client, approximation: str) -> None:
    """One JSON object, with what the request cost."""
    cost = cluster.cost
    spent = {"seconds": cost.seconds, "rounds": cost.rounds, "bytes": cost.bytes()}
    ui.answer(content | spent | ui.profile(approximation) | ui.doubtful(cluster))


def _classes(
    cluster: Client, asked: list[Any], own: Own, join: Any, cut: Any, lengths: str
) -> list[tuple[Any, dict[str, Any]]]:
    """What is said of each text or pair."""
    from puma.models import heads

    named, hypothesis, multi_label, entails = own
    if heads(cluster.model.config).each_token:
        found = [cluster.entities(text, join) for text in asked]
        names = ("label", "score", "text", "start", "end")
        each = [{"entities": [{name: getattr(e, name) for name in names} for e in one]} for one in found]
        return list(zip(asked, each, strict=True))
    if named:
        classes = [cluster.zero_shot(text, named, hypothesis, multi_label, entails, lengths) for text in asked]
    else:
        classes = cluster.classify(asked, cut, lengths)
    _note_cut(classes)
    said = [{"labels": c.labels, "scores": c.scores} | _cut(c.cut) for c in classes]
    return list(zip(asked, said, strict=True))


def _note_cut(found: Sequence[Any]) -> None:
    count = sum(each.cut for each in found)
    if count:
        ui.note(f"note: {count} of {len(found)} were longer than the model takes and were cut; see --cut")


def _cut(cut: bool) -> dict[str, bool]:
    return {"cut": True} if cut else {}


def _whole(words: list[str], file: Path | None) -> str:
    """The text: of the command line, of a file, or of standard input."""
    if words and file is not None:
        raise UsageError("--text takes the place of TEXT", "leave out one of them")
    if file is None:
        if not words and sys.stdin.isatty():
            raise UsageError("there is no text to quote", "pass one, or --text FILE, or pipe it in")
        return words[0] if words else sys.stdin.read()
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read ({error})", "pass a text file") from error


def _texts(words: list[str], file: Path | None) -> list[str]:
    """The texts: of the command line, or a file's lines, or those of standard input if there is nothing else."""
    if words and file is not None:
        raise UsageError("--texts takes the place of TEXT", "leave out one of them")
    if words:
        return words
    if file is not None:
        return read(file)
    if sys.stdin.isatty():
        raise UsageError("there is no text", "pass at least one, or --texts FILE, or pipe them in")
    found = [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not found:
        raise UsageError("there is no text", "write one in each line of standard input")
    return found
