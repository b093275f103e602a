"""SmolLM2-135M-Instruct in fixed point beside plaintext of the same weights: chats, a long text, a long answer.

Fixed point is the run in the clear, which gives what three parties give (tests hold that); three processes
answer all chats or some of them, too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from puma.client.chat.conversation import Conversation
from puma.local.cluster import LocalCluster
from puma.models import text
from puma.reference.fixed_session import FixedSession
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.wire.messages import NEXT

QUESTIONS = (
    "What is the capital of France?",
    "Who wrote Pride and Prejudice?",
    "What is 17 plus 25?",
    "Name three primary colours.",
    "Write a haiku about autumn.",
    "Explain photosynthesis in two sentences.",
    "Give me a recipe for pancakes.",
    "Translate 'good morning' into French.",
    "What does HTTP stand for?",
    "Write a Python function that reverses a string.",
    "How many days are in a leap year?",
    "Tell me a short story about a dragon who is afraid of fire.",
    "What is the largest planet in the solar system?",
    "List five kinds of pasta.",
    "Why is the sky blue?",
    "Summarise the plot of Romeo and Juliet.",
    "What should I pack for a hike?",
    "Is a tomato a fruit or a vegetable?",
    "Write an email that asks for a day off.",
    "What is the difference between weather and climate?",
)
NEW, LONG, BYTES = 64, 256, 20_000
PIECE = 160  # tokens; the logits of more are too many for one request


def prompts(model: PlainModel, questions: Sequence[str] = QUESTIONS) -> list[list[int]]:
    """The questions by the model's chat template."""
    return [Conversation(model).prompt_ids(question, NEW) for question in questions]


def agreed(model: PlainModel, ids: list[list[int]], new: int, fixed: Any) -> list[dict[str, Any]]:
    """Of each prompt how many greedy tokens are plaintext's, and by how much plaintext's best logit exceeds its second
    one where they part."""
    steps = list(Plain(model.config, model.plain).ranked(ids, new))
    found = list(zip(*fixed.continued(ids, new), strict=True))
    rows = []
    for i, secure in enumerate(found):
        plain = [step[0][i] for step in steps]
        same = next((t for t in range(new) if plain[t] != secure[t]), new)
        row: dict[str, Any] = {"tokens": new, "same": same, "text": model.decode(plain)}
        rows.append(row | ({"gap": steps[same][1][i]} if same < new else {}))
    return rows


def sample(model: PlainModel, data: Path) -> list[list[int]]:
    """20 kB of stories and news, as pieces that go through the model by themselves."""
    stories = (data / "tinystories" / "tinystories_val.txt").read_text(encoding="utf-8")
    news = (data / "glue" / "RTE" / "dev.tsv").read_text(encoding="utf-8").replace("\t", " ")
    whole = "\n".join(part.encode()[: BYTES // 2].decode(errors="ignore") for part in (stories, news))
    ids = text.encode(model.tokenizer, model.config, whole, special=False).ids
    return [ids[at : at + PIECE] for at in range(0, len(ids), PIECE)]


def compared(model: PlainModel, pieces: list[list[int]], fixed: Any) -> dict[str, Any]:
    """Mean Kullback-Leibler divergence, how often both agree on the likeliest token, the largest error of a logit."""
    plain, kl, agree, worst, count = Plain(model.config, model.plain), 0.0, 0, 0.0, 0
    for ids in pieces:
        (a,), (b,) = plain.encode([ids], NEXT), fixed.encode([ids], NEXT)
        p, q = a.log_softmax(-1), b.log_softmax(-1)
        kl += float((p.exp() * (p - q)).sum())
        agree += int((a.argmax(-1) == b.argmax(-1)).sum())
        apart = (a - b) - (a - b).mean(-1, keepdim=True)
        worst, count = max(worst, float(apart.abs().max())), count + len(ids)
    return {"tokens": count, "kl": kl / count, "agree": agree / count, "max_logit_error": worst}


def measured(
    path: Path, data: Path, pieces: int | None = None, asked: int | None = None, parties: bool = True
) -> dict[str, Any]:
    """All figures of the model in this file; `data` has the texts. So many `pieces` and questions `asked`, or all."""
    model = PlainModel(path)
    plan = model.plan()
    fixed = FixedSession(model.config, model.params)
    started = time.perf_counter()
    texts = compared(model, sample(model, data)[:pieces], fixed)
    chats = agreed(model, prompts(model)[:asked], NEW, fixed)
    long = agreed(model, prompts(model)[11:12], LONG, fixed)
    found = {"stream": plan.formats.stream, "text": texts, "chats": chats, "long": long}
    if parties:
        with LocalCluster(model) as cluster:
            found["parties"] = agreed(model, prompts(model)[:asked], NEW, cluster.session)
    return found | {"seconds": time.perf_counter() - started, "threads": torch.get_num_threads()}
