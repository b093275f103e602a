"""Which words of a client between two steps a party refuses: rows that are not there, prompts that do not fit.

All of it is public and said alike to all three parties. This file must not know how a word came.
"""

from __future__ import annotations

from collections.abc import Sequence

from puma.engine.admission import Allowed, admit, admit_tokens
from puma.engine.request import Request, check_rows, sizes
from puma.errors import InputError, ProtocolError, UsageError
from puma.models.config import Config
from puma.models.text import MAX_ELEMENTS, check_batch
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
    staying, owed = check_rows(requests, word.leave), _owed(requests, word)
    if first.beams > 1 and (word.leave or word.join):
        raise ProtocolError("texts of one search cannot leave or be joined", "say that it is over")
    if not staying and not word.join:
        raise ProtocolError("a request goes on without rows", "say that it is over")
    fed = staying * first.beams if first.fed else 0
    if (word.input is not None) != bool(fed) or (word.parents and not fed):
        raise ProtocolError("the client chose no next tokens, or should not", "send one for each prompt or beam")
    if word.input is not None:
        _check_fed(config, first, word, [1] * fed if first.beams > 1 else owed, flags)
    for job in word.join:
        _admit_join(config, approximation, first, job, allowed)
    if word.join:
        lengths, new = zip(*_under_way(requests, word), strict=True)
        check_batch(config, lengths, new)
        admit_tokens(sum(lengths) + sum(new), allowed)


def _owed(requests: Sequence[Request], word: Pace) -> list[int]:
    """What each row that stays is still owed, once those tokens count that it has got."""
    owed = [owed for request in requests for owed in request.owed]
    if any(request.job.drafts for request in requests if isinstance(request.job, Generate)):
        read = [parents for request in requests for parents in request.follows]
        if len(word.kept) != len(read) or not all(map(_is_path, word.kept, read)):
            raise ProtocolError("it is not said which tokens of each prompt count", "say so of each that was read")
        owed = [left + 1 - len(kept) for left, kept in zip(owed, word.kept, strict=True)]
        asked = [new for request in requests for _, new in request.asked]
        if any(left >= new for left, new in zip(owed, asked, strict=True)):  # of a prompt of one nothing would be left
            raise ProtocolError("a token of a prompt is taken back", "say that its last one counts")
    elif word.kept:
        raise ProtocolError("tokens are taken back that were no drafts", "begin the request with drafts")
    leaving = set(word.leave)
    return [left for row, left in enumerate(owed) if row not in leaving]


def _is_path(kept: Sequence[int], parents: Sequence[int]) -> bool:
    """Whether these are places of tokens of which each follows the one before, from the first one on; or none."""
    before = [parents[place - 1] if 0 < place <= len(parents) else -1 for place in kept]
    return not kept or (kept[0] == 0 and before[1:] == list(kept[:-1]))


def follows(word: Pace) -> list[list[int]]:
    """Of each row that a word sends tokens of, what follows what: one behind the other if nothing is said."""
    lengths = [] if word.input is None else word.input.lengths
    return word.parents or [[*range(length - 1)] for length in lengths]


def _deepest(parents: Sequence[int]) -> int:
    """How many tokens follow each other at most, or more than anybody is owed if some follow what comes later."""
    deep = [1]
    for place, parent in enumerate(parents):
        if parent > place:
            return 1 << 40
        deep.append(deep[parent] + 1)
    return max(deep)


def _check_fed(config: Config, first: Generate, word: Pace, owed: Sequence[int], flags: int) -> None:
    """Refuse other tokens than one for each row that stays, and drafts of it; and more than can come true."""
    given = word.input
    assert given is not None
    lengths, most = given.lengths, 1 + first.drafts
    fits = len(lengths) == len(owed) and max(lengths) <= most
    said = follows(word) if fits else []  # of the lengths that a client names nothing is made before they are looked at
    fits = fits and [1 + len(parents) for parents in said] == lengths
    if not fits or given.padded != bool(flags) or any(_deepest(p) > left for p, left in zip(said, owed, strict=True)):
        raise ProtocolError("the client chose no next tokens, or too many", "send one for each prompt or beam")
    if given.begun or given.types or given.quick:  # of a prompt; a step would be given what no step can read
        raise ProtocolError("next tokens come with what belongs to a prompt", "send tokens and their drafts alone")
    if sum(lengths) > len(lengths) and sum(lengths) * config.vocab_size > MAX_ELEMENTS:
        raise InputError(f"{sum(lengths)} tokens and drafts are too many for one step", "send fewer drafts")


def _under_way(requests: Sequence[Request], word: Pace) -> list[tuple[int, int]]:
    """Of each row of the next step the tokens of its prompt and the new ones."""
    asked, leaving = [asked for request in requests for asked in request.asked], set(word.leave)
    staying = [size for row, size in enumerate(asked) if row not in leaving]
    return staying + [size for job in word.join for size in sizes(job)]


def _admit_join(config: Config, approximation: str, first: Generate, job: Generate, allowed: Allowed) -> None:
    admit(config, approximation, job, allowed)
    kept = bool(first.keep or job.keep) or job.prefix is not None
    alike = (job.reveal, job.drafts) == (first.reveal, first.drafts)
    if kept or job.preprocessing or not job.paced or job.beams > 1 or not alike:
        raise UsageError("prompts join others whose tokens are chosen alike", "make a request of their own")
    if job.input.quick != first.input.quick:
        raise UsageError("prompts join others of the same plan", "make a request of their own")
