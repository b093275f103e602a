"""Tokens a step with drafts: without parties, which is quick, by what the plain model answers; and with three of them.

An answer does not depend on drafts. So the plain model's answer is computed once, and the client's own code drafts and
accepts beside it; the pace is that of a network, where a further token of a step costs next to nothing, or of this
machine, as a secure run has measured it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks import netem
from benchmarks.drafts import texts
from benchmarks.network import ONE_MACHINE, Emulated
from puma.client.chat.conversation import Conversation
from puma.client.drafts.acceptance import accepted
from puma.client.drafts.draft import Counted, Source
from puma.client.drafts.opening import opened
from puma.client.drafts.tempo import Tempo
from puma.client.sampling import Sampling
from puma.local.cluster import LocalCluster, Trio
from puma.measure.forecast import NETWORKS
from puma.nn.variants import title
from puma.reference.plain_model import PlainModel
from puma.wire.limits import MOST_DRAFTS

NEW, FEW = 96, 40  # tokens of an answer in the clear, and of three parties'
FEWER = 8  # of a large model's without drafts
SECURE = ("continue", "summarise")  # what three parties are asked of a large model
WAITING, HERE = 0.002, 0.06  # what a further token adds to a step: over a network, on one machine

Say = Callable[[str], None]


def drafts(quick: bool, say: Say, smollm2: Path | None = None, model: str | None = None) -> list[dict[str, Any]]:
    """All cases: the embedded model, and SmolLM2 if its file is named; drafts by lookup, and by a `model` if named."""
    found = list[dict[str, Any]]()
    stories = PlainModel(None)
    asked = {
        "tell a story": texts.STORIES[: 1 if quick else None],
        "continue a text": texts.GIVEN[: 1 if quick else None],
    }
    found += _in_clear(stories, asked, ["lookup"], say)
    found += _over_network(stories, texts.GIVEN[0], quick, say)
    if smollm2 is not None:
        chats = PlainModel(smollm2)
        found += _in_clear(chats, texts.CONTINUED | texts.ASKED, ["lookup", *([model] if model else [])], say)
        found += _here(chats, say)
    return found


def prompts(model: PlainModel, kind: str, asked: Sequence[str], new: int) -> list[list[int]]:
    """Token ids: of questions by the model's chat template, of others as they are."""
    if kind in texts.ASKED:
        return [Conversation(model).prompt_ids(each, new) for each in asked]
    return [model.prompt_ids(each, new) for each in asked]


def beside(answer: Sequence[int], ids: Sequence[int], source: Source, share: float, new: int) -> Counted:
    """What the client drafts and accepts where the parties say `answer`, which goes on behind the `new` tokens."""
    tempo, counted = Tempo(), Counted()
    for read in (1, 5):
        tempo.heard(read, 1.0 + share * (read - 1))
    drafter = source.begin(ids, Sampling(), tempo)
    drafter.learn(answer[:1])
    at = 1
    while at < new:
        draft = drafter.propose(MOST_DRAFTS, new - at - 1)
        depths = [0]
        for parent in draft.follows:
            depths.append(depths[parent] + 1)
        found, _ = accepted(torch.tensor([answer[at + depth] for depth in depths]), draft)
        counted.note(len(draft.tokens), len(found))
        drafter.learn(found)
        at += len(found)
    return counted


def _in_clear(
    model: PlainModel, asked: dict[str, list[str]], ways: Sequence[str], say: Say, new: int = NEW
) -> list[dict[str, Any]]:
    found = []
    for kind, cases in asked.items():
        say(f"{model.name}: {kind}, in the clear")
        ids = prompts(model, kind, cases, new)
        answers = [_answer(model, each, new) for each in ids]
        for way in ways:
            source = opened(way, model)
            assert source is not None
            for name, share in (("network", WAITING), ("this machine", HERE)):
                total = Counted()
                for prompt, answer in zip(ids, answers, strict=True):
                    one = beside(answer, prompt, source, share, len(answer))
                    total.drafted, total.accepted = total.drafted + one.drafted, total.accepted + one.accepted
                    total.steps, total.tokens = total.steps + one.steps, total.tokens + one.tokens
                row = {"model": model.name, "kind": kind, "draft": source.name, "pace": name, "runs": len(ids)}
                found.append(row | _counts(total))
    return found


def _answer(model: PlainModel, ids: list[int], new: int) -> list[int]:
    """Up to the token that ends it."""
    answer = model.greedy(ids, new)
    return answer[: next((i + 1 for i, token in enumerate(answer) if token in model.eos), new)]


def _counts(counted: Counted) -> dict[str, Any]:
    return {
        "drafted": counted.drafted, "accepted": counted.accepted, "steps": counted.steps, "tokens": counted.tokens,
        "tokens_a_step": counted.a_step,
    }  # fmt: skip


def _over_network(model: PlainModel, prompt: str, quick: bool, say: Say) -> list[dict[str, Any]]:
    """The embedded model's three parties: one client, without drafts and with."""
    found, kernel = [], netem.available()
    if kernel:
        netem.enter()
    ids, new = model.prompt_ids(prompt, FEW), 4 if quick else FEW
    for network in (None,) if quick else (None, "wan"):
        with ExitStack() as stack:
            route: dict[str, Any] = {}
            if network is not None:
                shaped = stack.enter_context((netem.Shaped if kernel else Emulated)(NETWORKS[network]))
                route = {"route": shaped.route}
            cluster = LocalCluster(model, trio=stack.enter_context(Trio(**route)), variants="auto")
            for draft in (None, "lookup"):
                say(f"{model.name} over {network or ONE_MACHINE}, {draft or 'no'} drafts")
                row = {"model": model.name, "kind": "continue", "pace": network or ONE_MACHINE}
                found.append(row | _secure(cluster, ids, new, draft))
    return found


def _here(model: PlainModel, say: Say) -> list[dict[str, Any]]:
    """Three parties on this machine: a text that is gone on with, and one that is summed up. Without drafts every step
    is alike, so that a few tokens tell how long one takes."""
    found, asked = [], texts.CONTINUED | texts.ASKED
    with LocalCluster(model, variants="auto") as cluster:
        for kind in SECURE:
            (ids,) = prompts(model, kind, asked[kind][:1], FEW)
            for draft, new in ((None, FEWER), ("lookup", FEW)):
                say(f"{model.name}: {kind}, three parties, {draft or 'no'} drafts")
                row = {"model": model.name, "kind": kind, "pace": ONE_MACHINE}
                found.append(row | _secure(cluster, ids, new, draft))
    return found


def _secure(cluster: LocalCluster, ids: list[int], new: int, draft: str | None) -> dict[str, Any]:
    """Seconds of an answer, and of its tokens but the first."""
    started, first, tokens = time.perf_counter(), 0.0, []
    for token in cluster.stream_ids(ids, new, draft=draft):
        first = first or time.perf_counter() - started
        tokens.append(token)
    seconds, cost = time.perf_counter() - started, cluster.cost
    same = tokens == cluster.model.greedy(ids, new)[: len(tokens)]  # type: ignore[attr-defined]
    said: Any = cluster.session.said[0]
    row: dict[str, Any] = {"draft": draft or "none", "plan": title(said.input.quick), "same": same}
    row |= {"seconds": seconds, "first_seconds": first, "rounds": cost.rounds}
    row |= {"bytes": cost.total, "tokens": len(tokens), "per_second": len(tokens) / seconds}
    return row | (_counts(cost.drafts) if cost.drafts else {}) | {"secure": True}
