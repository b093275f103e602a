"""A request whose answers grow by drafts: several tokens of a prompt at a time, each prompt at its own pace.

It must not know how drafts are made, nor how text becomes tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from puma.client.batch import Batch, Rows
from puma.client.drafts.draft import Source
from puma.client.sampling import Sampling
from puma.client.session import Session
from puma.wire.limits import MOST_DRAFTS


def continued(
    session: Session, prompts: Sequence[Sequence[int]], tokens: int, draft: Source, chosen: dict[str, Any],
    how: Sampling, ends: Collection[int] = (), width: int = 0,
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
            found = [ended(step.get(i, []), ends) for i in range(len(prompts))]
            over = [i for i, new in enumerate(found) if new and new[-1] in ends]
            batch.drop(rows, over)
            _keep(rows, choose)
            yield found


def ended(tokens: list[int], ends: Collection[int]) -> list[int]:
    """Up to the token that ends a text, and with it."""
    last = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: last + 1]


def _keep(rows: Rows, choose: Any) -> None:
    """A chooser that is asked of all prompts at once is told which are left."""
    if choose is not None:
        choose.keep(rows.live)
