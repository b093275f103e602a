"""`puma answer`: an answer that stands in a text."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from puma.cli import ui
from puma.cli.options import FITTED, HUMAN, Count, Fitting, Flag, Output, Profile
from puma.cli.texts import answered, check_kind, piped, split_words
from puma.cli.where import HERE, Where, opened
from puma.errors import UsageError


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
    source, words = split_words(where, model, more)
    if not words or len(words) > 2:
        raise UsageError("puma answer needs QUESTION and TEXT", "pass both after the model, a text in quotes")
    question, whole = words[0], _whole(words[1:], text)
    with ui.progress(output.json) as progress:
        cluster, _ = opened(
            where, source, partial(check_kind, ("span",)), progress, None, approximation, fitting=fitting
        )
        with cluster:
            progress("answering", 0, 1)
            found = cluster.answer(question, whole, top, longest, nothing, window, stride)
            cost = cluster.cost
    where.keep(cluster)
    if output.json:
        answers = [{"answer": q.text, "score": q.score, "start": q.start, "end": q.end} for q in found]
        answered({"question": question, "answers": answers}, cluster, approximation)
        return
    for each in found:
        ui.say(f"{each.score:9.4f}  {each.text or '(no answer)'}")
    ui.say(ui.cost_line(cost, texts=1))
    where.say_local()


def _whole(words: list[str], file: Path | None) -> str:
    """The text: of the command line, of a file, or of standard input."""
    if words and file is not None:
        raise UsageError("--text takes the place of TEXT", "leave out one of them")
    if file is None:
        if not words and sys.stdin.isatty():
            raise UsageError("there is no text to quote", "pass one, or --text FILE, or pipe it in")
        return words[0] if words else piped()
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read ({error})", "pass a text file") from error
