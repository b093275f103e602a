"""Secure answers beside plaintext ones on real data, example by example, and what both are worth.

Each task turns a batch of examples into a record apiece, which holds what its measures need, so that an evaluation that
was broken off goes on from the records that are there. The sessions compared are alike: float, float with a profile's
polynomials, three parties or the computation in the clear. This file must not know which is which, nor where they go.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from puma.client.protocol import TokenSession
from puma.errors import InputError, UsageError
from puma.measure import scores as measures
from puma.measure.examples import Example
from puma.models import text as texts
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.wire.messages import NEXT

PLAINTEXT, APPROXIMATED, SECURE = "plaintext", "approximated", "secure"
BATCH_TOKENS = 2048  # of a request, about
BATCH = 64  # examples of a request, at most

Record = dict[str, Any]
Sessions = Mapping[str, TokenSession]  # by the names above; the second only where a profile is evaluated


@dataclass(frozen=True)
class Prompt:
    """An example as token ids; a pair of sentences to compare makes two rows."""

    rows: tuple[texts.Tokens, ...]
    label: str


@dataclass(frozen=True)
class Task:
    """How examples become prompts, a batch of prompts records, and records figures."""

    prompt: Callable[[PlainModel, Example, int], Prompt]
    records: Callable[[PlainModel, list[Prompt], Sessions, int], list[Record]]
    figures: Callable[[list[Record], str], dict[str, float]]
    compared: Callable[[list[Record]], dict[str, Any]]


def batches(model: PlainModel, prompts: Sequence[Prompt], new: int) -> Iterator[list[int]]:
    """Places of prompts that go into one request, short ones together."""
    order = sorted(range(len(prompts)), key=lambda i: -max(len(row.ids) for row in prompts[i].rows))
    batch: list[int] = []
    for i in order:
        lengths = [len(row.ids) for j in [*batch, i] for row in prompts[j].rows]
        if batch and (len(batch) == BATCH or not _fits(model, lengths, new)):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _fits(model: PlainModel, lengths: list[int], new: int) -> bool:
    if sum(lengths) > BATCH_TOKENS:
        return False
    try:
        texts.check_batch(model.config, lengths, new)
    except InputError:
        return False
    return sum(lengths) * model.config.vocab_size <= texts.MAX_ELEMENTS or not model.causal


def summary(task: Task, records: list[Record]) -> dict[str, Any]:
    """The figures of each kind of answer, and how far the secure ones lie from plaintext."""
    names = [name for name in (PLAINTEXT, APPROXIMATED, SECURE) if name in records[0]]
    figures = {name: task.figures(records, name) for name in names}
    gaps = {key: figures[SECURE][key] - value for key, value in figures[PLAINTEXT].items()}
    return figures | {"difference": gaps | task.compared(records)}


# -- classification -------------------------------------------------------------------------------------------------


def _encoded(model: PlainModel, example: Example, _: int) -> Prompt:
    first, *rest = example.texts
    if len(rest) > 1:
        raise UsageError("a classification takes one text or two", "name one or two columns with --text")
    return Prompt((model.read(first, *rest),), example.label)


def _asked(session: TokenSession, rows: Sequence[texts.Tokens], output: str, skip: int = 0) -> list[Tensor]:
    return session.encode([row.ids for row in rows], output, [row.types for row in rows], skip=skip)


def _classified(model: PlainModel, prompts: list[Prompt], sessions: Sessions, _: int) -> list[Record]:
    rows = [prompt.rows[0] for prompt in prompts]
    found = {name: _asked(session, rows, "logits") for name, session in sessions.items()}
    records: list[Record] = []
    for i, prompt in enumerate(prompts):
        answers = {name: int(logits[i].argmax()) for name, logits in found.items()}
        error = float((found[SECURE][i] - found[PLAINTEXT][i]).abs().max())
        records.append(answers | {"label": _class(model, prompt.label), "error": error})
    return records


def _class(model: PlainModel, label: str) -> int:
    """A label is the name of a class or its number."""
    if label in model.labels:
        return model.labels.index(label)
    if not (label.isdecimal() and int(label) < len(model.labels)):
        raise UsageError(f"{label} is no class of the model", f"these are {', '.join(model.labels)}, or 0, 1, ...")
    return int(label)


def _right(records: list[Record], name: str) -> dict[str, float]:
    found, right = [r[name] for r in records], [r["label"] for r in records]
    return {"accuracy": measures.accuracy(found, right), "matthews": measures.matthews(found, right)}


def _same_class(records: list[Record]) -> dict[str, Any]:
    same = [r[PLAINTEXT] == r[SECURE] for r in records]
    return {"agreement": sum(same) / len(same), "max_logit_error": max(r["error"] for r in records)}


# -- similarity -----------------------------------------------------------------------------------------------------


def _pair(model: PlainModel, example: Example, _: int) -> Prompt:
    if len(example.texts) != 2:
        raise UsageError("similarity compares two texts", "name two columns: --text COL,COL2")
    return Prompt(tuple(model.sentence_ids(sentence) for sentence in example.texts), example.label)


def _compared(model: PlainModel, prompts: list[Prompt], sessions: Sessions, _: int) -> list[Record]:
    rows = [row for prompt in prompts for row in prompt.rows]
    asked = {name: _asked(session, rows, "pooled", model.before()) for name, session in sessions.items()}
    found = {name: torch.stack([model.finished(vector) for vector in each]) for name, each in asked.items()}
    cosines = {
        name: torch.nn.functional.cosine_similarity(each[::2], each[1::2]).tolist() for name, each in found.items()
    }
    return [
        {name: values[i] for name, values in cosines.items()} | {"label": _number(prompt.label)}
        for i, prompt in enumerate(prompts)
    ]


def _number(label: str) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(score := float(label)):
            return score
    raise UsageError(f"{label} is no score", "name the column of scores with --label")


def _correlated(records: list[Record], name: str) -> dict[str, float]:
    found, right = [r[name] for r in records], [r["label"] for r in records]
    return {"spearman": measures.spearman(found, right), "pearson": measures.pearson(found, right)}


def _same_cosine(records: list[Record]) -> dict[str, Any]:
    return {"max_cosine_error": max(abs(r[PLAINTEXT] - r[SECURE]) for r in records)}


# -- perplexity -----------------------------------------------------------------------------------------------------


def _document(model: PlainModel, example: Example, most: int) -> Prompt:
    tokens = texts.encode(model.tokenizer, model.config, example.texts[0])
    ids = tokens.ids[: min(most or model.config.context, model.config.context)]
    return Prompt((texts.Tokens(ids, tokens.types[: len(ids)]),), "")


def _predicted(model: PlainModel, prompts: list[Prompt], sessions: Sessions, _: int) -> list[Record]:
    ids = [prompt.rows[0].ids for prompt in prompts]
    found = {name: session.encode(ids, NEXT) for name, session in sessions.items()}
    records: list[Record] = []
    for i, row in enumerate(ids):
        logits = {name: values[i][:-1] for name, values in found.items()}
        records.append({"tokens": len(row) - 1} | _scored(logits, torch.tensor(row[1:])))
    return records


def _scored(logits: dict[str, Tensor], right: Tensor) -> Record:
    logs = {name: values.log_softmax(-1) for name, values in logits.items()}
    record: Record = {}
    for name, values in logs.items():
        lost = -values.gather(1, right[:, None]).sum()
        record[name] = {"nll": float(lost), "top1": int((values.argmax(-1) == right).sum())}
    plain, secure = logs[PLAINTEXT], logs[SECURE]
    record["agree"] = int((plain.argmax(-1) == secure.argmax(-1)).sum())
    record["kl"] = float((plain.exp() * (plain - secure)).sum())
    record["error"] = float((logits[PLAINTEXT] - logits[SECURE]).abs().max()) if len(right) else 0.0
    return record


def _perplexity(records: list[Record], name: str) -> dict[str, float]:
    count = max(1, sum(r["tokens"] for r in records))
    lost = math.fsum(r[name]["nll"] for r in records)
    return {"perplexity": math.exp(lost / count), "top1": sum(r[name]["top1"] for r in records) / count}


def _same_predictions(records: list[Record]) -> dict[str, Any]:
    count = max(1, sum(r["tokens"] for r in records))
    lost = [math.fsum(r[name]["nll"] for r in records) / count for name in (PLAINTEXT, SECURE)]
    return {
        "perplexity_relative": math.expm1(lost[1] - lost[0]),
        "tokens": count,
        "top1_agreement": sum(r["agree"] for r in records) / count,
        "max_logit_error": max(r["error"] for r in records),
        "kl": math.fsum(r["kl"] for r in records) / count,
    }


# -- generation -----------------------------------------------------------------------------------------------------


def _begun(model: PlainModel, example: Example, new: int) -> Prompt:
    ids = model.prompt_ids(example.texts[0], new)
    return Prompt((texts.Tokens(ids, [0] * len(ids)),), example.label)


def _continued(model: PlainModel, prompts: list[Prompt], sessions: Sessions, new: int) -> list[Record]:
    ids = [prompt.rows[0].ids for prompt in prompts]
    steps = list(cast(Plain, sessions[PLAINTEXT]).ranked(ids, new))
    found = {name: list(zip(*s.continued(ids, new), strict=True)) for name, s in sessions.items() if name != PLAINTEXT}
    found[PLAINTEXT] = list(zip(*(step for step, _ in steps), strict=True))
    records: list[Record] = []
    for i, prompt in enumerate(prompts):
        plain, secure = found[PLAINTEXT][i], found[SECURE][i]
        same = next((t for t in range(new) if plain[t] != secure[t]), new)
        record: Record = {name: model.decode(tokens[i]) for name, tokens in found.items()}
        record |= {"same": same, "tokens": new, "label": prompt.label}
        records.append(record | ({"gap": steps[same][1][i]} if same < new else {}))
    return records


def _exact(records: list[Record], name: str) -> dict[str, float]:
    labelled = any(r["label"] for r in records)
    right, found = ([_unspaced(r[key]) for r in records] for key in ("label" if labelled else PLAINTEXT, name))
    return {"exact_match": measures.accuracy(found, right)}


def _unspaced(text: str) -> str:
    """Tokenizers differ in the spaces that they put between what they decode."""
    return "".join(text.split())


def _same_text(records: list[Record]) -> dict[str, Any]:
    lengths = [r["same"] for r in records]
    return {
        "agreement": sum(r["same"] == r["tokens"] for r in records) / len(records),
        "mean_agreement_length": sum(lengths) / len(lengths),
        "least_agreement_length": min(lengths),
        "gaps_where_they_part": sorted((r["gap"] for r in records if "gap" in r), reverse=True)[:10],
    }


TASKS = {
    "classification": Task(_encoded, _classified, _right, _same_class),
    "similarity": Task(_pair, _compared, _correlated, _same_cosine),
    "perplexity": Task(_document, _predicted, _perplexity, _same_predictions),
    "generation": Task(_begun, _continued, _exact, _same_text),
}
