"""`puma classify`: what a head for classes says of texts, or of what they name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from puma.cli import ui
from puma.cli.options import FITTED, HUMAN, Fitting, Flag, Output, Profile, Several
from puma.cli.texts import Cutting, answered, check_kind, cut_fields, given_texts, note_cut, split_words
from puma.cli.where import HERE, Where, opened
from puma.errors import UsageError

if TYPE_CHECKING:
    from puma.client.client import Client

Joining = Literal["none", "simple", "first", "average", "max"]
Own = tuple[tuple[str, ...], str, bool, str | None]  # classes of the client's own, and how they are judged


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
    source, words = split_words(where, model, more)
    found, how = given_texts(words, texts), "" if cut == "refuse" else cut
    if pairs and len(found) % 2:
        raise UsageError(f"{len(found)} texts are no pairs", "pass two at a time, or leave out --pairs")
    asked: list[Any] = list(zip(found[::2], found[1::2], strict=True)) if pairs else found
    if label and pairs:
        raise UsageError("--label makes pairs of its own", "leave out --pairs")
    with ui.progress(output.json) as progress:
        check = partial(check_kind, ("classes", "tokens"))
        cluster, _ = opened(where, source, check, progress, None, approximation, fitting=fitting)
        with cluster:
            progress("classifying", 0, 1)
            answers = _classes(cluster, asked, (label, hypothesis, multi_label, entails), join, how, lengths)
            cost = cluster.cost
    where.keep(cluster)
    if output.json:
        answered({"results": [{"text": text} | said for text, said in answers]}, cluster, approximation)
        return
    for text, said in answers:
        ui.say(text if isinstance(text, str) else " | ".join(text))
        for name, score in zip(said.get("labels", ()), said.get("scores", ()), strict=True):
            ui.say(f"  {ui.padded(name, 16)} {score:9.4f}")
        for each in said.get("entities", ()):
            ui.say(f"  {ui.padded(each['label'], 16)} {each['score']:9.4f}  {each['text']}")
    ui.say(ui.cost_line(cost, texts=len(answers)))
    where.say_local()


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
    note_cut(classes)
    said = [{"labels": c.labels, "scores": c.scores} | cut_fields(c.cut) for c in classes]
    return list(zip(asked, said, strict=True))
