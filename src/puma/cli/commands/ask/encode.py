"""`puma encode`: embed or classify texts, or images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from puma.cli import ui
from puma.cli.options import AS_IT_IS, FITTED, HUMAN, Fitting, Flag, Output, Profile, Worded
from puma.cli.where import HERE, Where, folder_of, opened, sentences
from puma.errors import UsageError

if TYPE_CHECKING:
    from puma.client.client import Encoding
    from puma.client.model_info import ModelInfo


def encode(
    model: str,
    /,
    *more: str,
    pairs: Flag = False,
    lengths: Literal["public", "secret"] = "public",
    compare: Flag = False,
    store: Path | None = None,
    prepared: Flag = False,
    approximation: Profile = "spline",
    worded: Worded = AS_IT_IS,
    fitting: Fitting = FITTED,
    where: Where = HERE,
    output: Output = HUMAN,
) -> None:
    """Embed texts, a vector each as sentence-transformers gives it, or classify them if the model has a head for that.

    Parameters
    ----------
    model
        An encoder's or a classifier's folder, or a hub name; with --cluster the first text.
    more
        Texts to encode, or the files of images; as many go in one request as the parties' memory takes.
    pairs
        Texts belong together two by two, as a question and a passage.
    lengths
        secret: the parties learn a common length only, the next power of two, and not how many tokens each text has.
    compare
        Run the plain model, too, and print how far the answers lie apart.
    store
        A folder where parties on this machine keep their shares and look for what `puma prepare` has computed ahead;
        of a cluster's client, where its prepared requests for that lie.
    prepared
        Use what `puma prepare` has computed ahead, in the usual place unless --store names one.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    """
    where.check(compare=compare)
    store = folder_of(store, prepared)
    source, words = (model, list(more)) if where.cluster is None else (None, [model, *more])
    if not words:
        raise UsageError("puma encode needs TEXT", "pass at least one after the model")
    if pairs and len(words) % 2:
        raise UsageError(f"{len(words)} texts are no pairs", "pass two at a time, or leave out --pairs")
    texts: list[Any] = list(zip(words[::2], words[1::2], strict=True)) if pairs else words
    with ui.progress(output.json) as progress:
        cluster, read = opened(
            where, source, lambda c: sentences(c, texts, worded.asked), progress, store, approximation, fitting=fitting
        )
        with cluster:
            progress("encoding", 0, 1)
            found, cost = cluster.encode(texts, lengths, **worded.asked), cluster.cost
        clear = cluster.model
        plain = [_plain(clear, each, worded.asked) if compare else None for each in read]
    where.keep(cluster)
    _note(clear, read)
    results = [_encoded(clear, text, e, p) for text, e, p in zip(texts, found, plain, strict=True)]
    if output.json:
        alone = {key: value for key, value in results[0].items() if key != "text"} if len(texts) == 1 else {}
        spent = {"seconds": cost.seconds, "rounds": cost.rounds, "bytes": cost.bytes()}
        ahead = ui.profile(approximation) | (ui.prepared(cost) if store else {})
        ui.answer({"results": results} | alone | spent | ahead | ui.doubtful(cluster))
        return
    for result in results:
        _show_encoded(result)
    ui.say(ui.cost_line(cost, texts=len(texts)))
    where.say_local()


def _plain(clear: Any, reading: Any, asked: dict[str, Any]) -> Any:
    from puma.client.sentences import Asked

    return clear.encoded(reading.tokens, Asked.of(**asked))


def _note(clear: ModelInfo, read: list[Any]) -> None:
    """What was assumed or left out without being asked for in so many words."""
    ui.assumed(clear.config)
    for i, each in enumerate(read):
        if each.left_out:
            ui.note(f"Text {i + 1}: {len(each.tokens.ids)} tokens are read, {each.left_out} beyond them are left out.")


def _encoded(clear: ModelInfo, text: Any, found: Encoding, plain: Any) -> dict[str, Any]:
    """One text's or pair's answer, and how far it lies from the plain model's."""
    key = "logits" if clear.labels else "embedding"
    values = found.values
    result: dict[str, Any] = {"text": text, key: values.tolist()}
    result |= {"labels": list(clear.labels)} if clear.labels else {}
    result |= {"left_out": found.left_out} if found.left_out else {}
    if plain is not None:
        from torch import nn

        cosine = float(nn.functional.cosine_similarity(values.flatten(), plain.flatten(), dim=0))
        result["compare"] = {"max_abs_error": float((values - plain).abs().max()), "cosine": cosine}
    return result


def _show_encoded(result: dict[str, Any]) -> None:
    ui.say(result["text"] if isinstance(result["text"], str) else " | ".join(result["text"]))
    if "logits" in result and isinstance(result["logits"][0], list):  # of each token
        ui.say(f"  {_of_tokens(result['logits'], result['labels'])}")
    elif "logits" in result:
        best = max(result["logits"])
        for label, value in zip(result["labels"], result["logits"], strict=True):
            ui.say(f"  {ui.padded(label, 16)} {value:9.4f}{'  <' if value == best else ''}")
    else:
        first = ", ".join(f"{value:.4f}" for value in result["embedding"][:6])
        ui.say(f"  {len(result['embedding'])} numbers: {first}, ... (--json prints all)")
    if "compare" in result:
        far, cosine = result["compare"]["max_abs_error"], result["compare"]["cosine"]
        ui.say(f"  plain model: largest difference {far:.2g}, cosine {cosine:.6f}")


def _of_tokens(rows: list[list[float]], labels: list[str]) -> str:
    """The best class of each token; of a matrix beside an encoder, whose classes have no names, its numbers."""
    if len(labels) == 1:
        return " ".join(f"{row[0]:.4f}" for row in rows)
    if labels == [str(i) for i in range(len(labels))]:
        return f"{len(rows)} tokens, {len(labels)} numbers of each (--json prints all)"
    return " ".join(labels[max(range(len(row)), key=row.__getitem__)] for row in rows)
