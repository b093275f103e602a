"""`puma chat`: one conversation, turn after turn, with three distant parties or three processes here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from puma.cli import ui
from puma.cli.options import FITTED, HUMAN, NO_DRAFTS, Count, Drafting, End, Fitting, Flag, Output
from puma.cli.where import HERE, Where, opened
from puma.errors import InputError

if TYPE_CHECKING:
    from puma.client.client import Client


def chat(
    model: str | None = None,
    /,
    *,
    tokens: Count = 128,
    stop: End | None = None,
    forget: Flag = False,
    drafting: Drafting = NO_DRAFTS,
    fitting: Fitting = FITTED,
    where: Where = HERE,
    output: Output = HUMAN,
) -> None:
    """Talk with a model, a line at a time; an empty line or the end of input ends it.

    Each turn is a request of its own. The parties keep what they computed of the one before for a while, so that only
    what is new is sent; they learn that it goes on, and how long everything is. With drafts they keep nothing.

    Parameters
    ----------
    model
        A checkpoint's folder, a GGUF file or a hub name; the embedded model, stories, if left out.
    tokens
        How many new tokens each answer has, at most with --stop.
    stop
        eos: end an answer where its text ends. The parties then wait after each token, and learn how many there are.
    forget
        Let the parties keep nothing, and send the whole conversation with each turn.
    """
    from puma.client.chat.conversation import Conversation

    with ui.progress(output.json) as progress:
        cluster, talk = opened(where, model, Conversation, progress, None, fitting=fitting)
    ui.undrawn(cluster.model.rules.undrawn())
    turns = []
    with cluster:
        while line := _line(output.json):
            try:
                memory = None if forget else talk.memory
                answer = _turn(cluster, talk, line, (tokens, stop, drafting.draft, memory), output.json)
            except InputError as error:  # the conversation has become too long, say; it can go on
                ui.failed(error, False)
                continue
            turns.append({"user": line, "assistant": answer})
            where.keep(cluster)
    if output.json:
        ui.answer({"turns": turns, "templated": talk.templated})
        return
    where.say_local()


def _turn(cluster: Client, talk: Any, line: str, how: tuple[int, End | None, str | None, Any], as_json: bool) -> str:
    """One answer, shown as it comes; `how` is of how many tokens, where it ends, what makes drafts, and what the
    parties keep."""
    tokens, stop, draft, memory = how
    ids, found, writer = talk.prompt_ids(line, tokens), [], ui.Typewriter()
    for token in cluster.stream_ids(ids, tokens, stop, draft=draft, memory=memory):
        found.append(token)
        if not as_json:
            writer.show(cluster.decode(found))
    answer = talk.answered(found)
    if not as_json:
        writer.show(cluster.decode(found) + "\n", last=True)
    return answer


def _line(as_json: bool) -> str:
    """What the user says next; nothing at the end."""
    if sys.stdin.isatty() and not as_json:
        ui.say("> ", end="")
    with ui.reading():
        return sys.stdin.readline().strip()
