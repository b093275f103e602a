"""Which words of a client between two steps a party refuses: rows that are not there, prompts that do not fit.

All of it is public and said alike to all three parties. This file must not know how a word came.
"""

from __future__ import annotations

from collections.abc import Sequence

from puma.engine.admission import Allowed, admit, admit_tokens
from puma.engine.request import Request, check_rows, sizes
from puma.errors import ProtocolError, UsageError
from puma.models.config import Config
from puma.models.text import check_batch
from puma.wire.messages import Generate, Pace


def admit_word(
    config: Config, approximation: str, requests: Sequence[Request], word: Pace, flags: int, allowed: Allowed
) -> None:
    """Refuse a word to go on that contradicts itself or what is under way, or asks for more than is `allowed`.

    `flags` secret ones and zeros must come with the tokens that the client chose. Raises ProtocolError, and for
    requests that cannot join what `admit` raises.
    """
    first = requests[0].job
    assert isinstance(first, Generate)
    staying = check_rows(requests, word.leave)
    if first.beams > 1 and (word.leave or word.join):
        raise ProtocolError("texts of one search cannot leave or be joined", "say that it is over")
    if not staying and not word.join:
        raise ProtocolError("a request goes on without rows", "say that it is over")
    fed = staying * first.beams if first.reveal else 0
    if (word.input is not None) != bool(fed):
        raise ProtocolError("the client chose no next tokens, or should not", "send one for each prompt or beam")
    if word.input is not None and (word.input.lengths != [1] * fed or word.input.padded != bool(flags)):
        raise ProtocolError("the client chose no next tokens", "send one for each prompt or beam")
    for job in word.join:
        _admit_join(config, approximation, first, job, allowed)
    if word.join:
        lengths, new = zip(*_under_way(requests, word), strict=True)
        check_batch(config, lengths, new)
        admit_tokens(sum(lengths) + sum(new), allowed)


def _under_way(requests: Sequence[Request], word: Pace) -> list[tuple[int, int]]:
    """Of each row of the next step the tokens of its prompt and the new ones."""
    asked, leaving = [asked for request in requests for asked in request.asked], set(word.leave)
    staying = [size for row, size in enumerate(asked) if row not in leaving]
    return staying + [size for job in word.join for size in sizes(job)]


def _admit_join(config: Config, approximation: str, first: Generate, job: Generate, allowed: Allowed) -> None:
    admit(config, approximation, job, allowed)
    kept = bool(first.keep or job.keep) or job.prefix is not None
    if kept or job.preprocessing or not job.paced or job.beams > 1 or job.reveal != first.reveal:
        raise UsageError("prompts join others whose tokens are chosen alike", "make a request of their own")
