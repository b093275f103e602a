"""A request whose answers grow by drafts: several tokens of a prompt at a time, each prompt at its own pace.

It must not know how drafts are made, nor how text becomes tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from puma.client.batch import Batch, Rows
from puma.client.drafts.draft import Source
from puma.client.model_info import ModelInfo
from puma.client.sampling import Sampling
from puma.client.session import Session
from puma.client.tokens.ending import Ended, up_to_end
from puma.errors import UsageError
from puma.wire.limits import MOST_DRAFTS


def steps(
    session: Session, model: ModelInfo, prompts: Sequence[Sequence[int]], tokens: int, ended: Ended | None,
    how: Sampling, bucket: dict[str, Any], draft: Source | None, ahead: int = 0,
) -> Iterator[list[list[int]]]:  # fmt: skip
    """Of each prompt the tokens that a step decides, step by step: one, or with drafts any number.

    `bucket` is as Client.bucket gives it; `ahead` as for Session.continued, of texts that nobody ends.
    """
    begun = bucket.get("begun", [])
    chosen = session.choosing(how, model.following(prompts, session.reveals, *begun[:1]))
    if draft is not None:
        if begun:
            raise UsageError("answers that begin with given tokens take no drafts", "leave out one of both")
        where = model.eos if ended else (), bucket.get("padded", 0)
        yield from continued(session, prompts, tokens, draft, chosen, how, *where)
        return
    pace = {"ahead": ahead} if ahead and ended is None else {"paced": ended is not None}
    with closing(session.continued(prompts, tokens, **pace, **chosen, **bucket)) as found:
        for step in found:
            over = ended is not None and ended(step)
            if over:
                found.close()
            yield [[token] for token in step]
            if over:
                return


def continued(
    session: Session, prompts: Sequence[Sequence[int]], tokens: int, draft: Source, chosen: dict[str, Any],
    how: Sampling, ends: Sequence[int] = (), width: int = 0,
) -> Iterator[list[list[int]]]:  # fmt: skip
    """Yield of each prompt the tokens that it goes on with, as a step decides them; none where it has got all of them.

    `chosen` says who chooses tokens, as Session.choosing gives it. A prompt ends with one of `ends`, too, and leaves
    the parties then. Prompts are padded to a `width` in secret if there is one. What a step with drafts says may be
    wrong is computed again without; OutOfRange if it is the answer itself, unless the session takes that.
    """
    choose = chosen.get("choose")
    with Batch(session, choose is not None, drafts=MOST_DRAFTS) as batch:
        temperature = chosen.get("temperature", 0.0)
        rows = batch.add(prompts, tokens, temperature, choose, draft, how, width)
        session.doubtful = set()
        while not batch.empty:
            step = batch.step()[rows]
            session.judged(sorted(rows.flagged), len(prompts))
            found = [up_to_end(step.get(i, []), ends) for i in range(len(prompts))]
            over = [i for i, new in enumerate(found) if new and new[-1] in ends]
            batch.drop(rows, over)
            _keep(rows, choose)
            yield found


def _keep(rows: Rows, choose: Any) -> None:
    """A chooser that is asked of all prompts at once is told which are left."""
    if choose is not None:
        choose.keep(rows.live)
