"""Prompts of several askers in one generation: they join and leave between two steps, and each gets its own tokens.

The parties compute all rows of a step at once, which costs little more than one; with drafts a prompt gets several
tokens of a step. They learn who joins and leaves when, as they learn lengths, and how many drafted tokens were right. A
batch is a stream of its session: nothing else is asked meanwhile. This file must not know who the askers are, nor how
drafts are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import msgspec
from torch import Tensor

from puma.client.canaries.alike import unlike
from puma.client.cost import cost_of
from puma.client.drafts.acceptance import accepted
from puma.client.drafts.draft import NOTHING, Counted, Draft, Drafter, Source
from puma.client.sampling import Sampling
from puma.client.session import Session
from puma.client.turns import Stream
from puma.errors import AdmissionError, PolicyError, PumaError, UsageError
from puma.models.text import MAX_ELEMENTS, check_batch
from puma.wire import messages as msg
from puma.wire.answers import Format, answers
from puma.wire.input_share import InputShare
from puma.wire.inputs import laid_out, looked_up, share_input, upload_bytes

Choose = Callable[[Tensor], list[int]]  # from the logits of each prompt, its next token


@dataclass(eq=False)
class Rows:
    """Prompts that were added together, and which of them are under way; all by their numbers."""

    prompts: Sequence[Sequence[int]]
    tokens: int
    temperature: float
    choose: Choose | None
    width: int = 0  # that all are padded to in secret, if there is one
    drafters: Sequence[Drafter] = ()
    begun: Sequence[int] = ()  # that the answers of all begin with, in models that read prompts apart
    live: list[int] = field(init=False)  # prompts that are to get more tokens
    there: list[int] = field(default_factory=list)  # and those that the parties think so of
    chosen: dict[int, int] = field(default_factory=dict)  # their latest tokens
    left: list[int] = field(init=False)  # tokens that each of them is still to get
    drafts: dict[int, Draft] = field(default_factory=dict)  # what the step reads behind their latest tokens
    kept: dict[int, list[int]] = field(default_factory=dict)  # places of what the last step read, of those that count
    alone: set[int] = field(default_factory=set)  # whose next step has no drafts
    flagged: set[int] = field(default_factory=set)  # of whose latest tokens a number has left its range

    def __post_init__(self) -> None:
        self.live, self.left = [*range(len(self.prompts))], [self.tokens] * len(self.prompts)

    @property
    def asked(self) -> list[tuple[int, int]]:
        """Of each prompt under way its tokens, and the new ones with those that its answer begins with."""
        return [(self.width or len(self.prompts[i]), self.tokens + len(self.begun)) for i in self.live]

    @property
    def reads(self) -> list[int]:
        """How many tokens the step reads of each at the parties; of a prompt that is new one counts."""
        return [1 + len(self.drafts.get(i, NOTHING).tokens) for i in self.there]

    def propose(self, most: int) -> None:
        """Let drafts be made for the next step, of up to so many tokens each, and none that could not come true."""
        self.drafts = {}
        for i in self.live:
            if self.drafters and i in self.chosen:
                deep = 0 if i in self.alone else self.left[i] - 1
                self.drafts[i] = self.drafters[i].propose(most if deep else 0, deep).within(most, deep)


class Batch:
    """A generation of a session that prompts join and leave; whether the client chooses tokens (`reveal`) is the same
    for all, and so is of how many tokens `drafts` may be. `limit` is how many tokens, old and new, may be under way at
    a time, if the parties have one.

    Use it in a `with`, from one thread. PolicyError if the client may not choose.
    """

    def __init__(self, session: Session, reveal: bool = False, limit: int | None = None, drafts: int = 0) -> None:
        if reveal and not session.reveals:
            raise PolicyError("the model's owner does not let clients see logits", msg.POLICY_HINT)
        if drafts and session.audited:
            raise unlike("drafts of a real text are right more often than those of random tokens")
        self._session, self._reveal, self._limit, self._drafts = session, reveal, limit, drafts
        self.counted = Counted()  # what became of drafts
        self._stream: Stream | None = None
        self._turns = ExitStack()
        self._rows: list[Rows] = []  # at the parties, in their order
        self._new: list[Rows] = []
        self._sent = 0  # bytes of shares
        self._quick: tuple[str, ...] = ()  # the plan of all that go together, made for the first of them

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def empty(self) -> bool:
        """Whether nobody wants another step."""
        return not any(rows.live for rows in (*self._rows, *self._new))

    def fits(self, prompts: Sequence[Sequence[int]], tokens: int, alone: bool = False) -> bool:
        """Whether these could go with those that are under way, or at least `alone`."""
        under_way = [] if alone else [asked for rows in (*self._rows, *self._new) for asked in rows.asked]
        try:
            self._check([*under_way, *((len(ids), tokens) for ids in prompts)])
        except PumaError:
            return False
        return True

    def _check(self, asked: Sequence[tuple[int, int]]) -> None:
        check_batch(self._session.served, [length for length, _ in asked], [new for _, new in asked])
        total = sum(length + new for length, new in asked)
        if self._limit is not None and total > self._limit:
            what = f"{total} tokens, prompts and answers together, are more than the {self._limit} that are allowed"
            raise AdmissionError(what, "ask for fewer at a time")

    def add(
        self, prompts: Sequence[Sequence[int]], tokens: int, temperature: float = 0.0, choose: Choose | None = None,
        draft: Source | None = None, how: Sampling | None = None, width: int = 0, begun: Sequence[int] = (),
    ) -> Rows:  # fmt: skip
        """Let these prompts join at the next step, padded to a `width` in secret if there is one; nothing is sent
        before. Drafts of their answers come from a source, which is told `how` the client draws tokens, if it does. All
        answers begin with the tokens `begun`, of which the parties learn how many there are.

        Raises InputError or AdmissionError for what does not fit, and UsageError for tokens that would be chosen in
        another way than the batch's.
        """
        if (choose is not None) != self._reveal or (choose is not None and temperature):
            raise UsageError("these tokens would be chosen in another way than the batch's", "make another batch")
        if tokens < 1:
            raise UsageError(f"cannot generate {tokens} tokens", "ask for at least one")
        laid_out(self._session.served, prompts, width, [begun] * len(prompts))  # which refuses what are no tokens
        self._check([(len(ids), tokens + len(begun)) for ids in prompts])
        if not self.fits(prompts, tokens + len(begun)):
            raise AdmissionError("there is no room for these prompts now", "wait until others have left")
        drafting = Sampling() if how is None or choose is None else how
        tempo, source = self._session.tempo, draft if self._drafts else None
        made = [source.begin(ids, drafting, tempo) for ids in prompts] if source is not None else []
        rows = Rows([[*ids] for ids in prompts], tokens, temperature, choose, width, made, [*begun])
        self._new.append(rows)
        return rows

    def drop(self, rows: Rows, which: Iterable[int] | None = None) -> None:
        """No more tokens are wanted of some of these prompts, or of all: the parties hear of it before the next step.

        Prompts that have not been sent leave together only.
        """
        gone = set(rows.live if which is None else which)
        if rows in self._new:
            if not gone.issuperset(rows.live):
                raise UsageError("prompts that have not been sent leave together", "drop all, or none before a step")
            self._new.remove(rows)
        rows.live = [i for i in rows.live if i not in gone]

    def step(self) -> dict[Rows, dict[int, list[int]]]:
        """One step of all prompts under way: of those added together, by each one's number, its next tokens: one; or
        with drafts as many as were right, and one. None if a number left its range where drafts were read: perhaps in a
        wrong one, so that the step is done again without.

        A token that may be wrong, because a number left its range, is given like others; `flagged` names its prompt.
        UsageError if there are none. Any other error ends the session.
        """
        if self.empty:
            raise UsageError("nothing is under way in this batch", "add prompts first")
        if self._stream is None:
            self._stream = self._turns.enter_context(self._session.turns.stream())
        with self._stream:
            for rows in self._rows:
                rows.propose(self._most)
            started, begins = perf_counter(), bool(self._new)
            self._speak()
            read = sum(sum(rows.reads) for rows in self._rows)
            found = self._listen()
            if not begins:
                self._session.tempo.heard(read, perf_counter() - started)
            return found

    @property
    def _most(self) -> int:
        """Tokens of a draft, at most: all results of a step must fit."""
        live = sum(len(rows.live) for rows in (*self._rows, *self._new))
        return min(self._drafts, max(0, MAX_ELEMENTS // (live * self._session.served.vocab_size) - 1))

    def close(self) -> None:
        """Leave those that are under way; `cost` of the session is then this batch's."""
        try:
            if self._stream is not None and self._rows and not self._session.over and self._stream.at_hand:
                with self._stream:
                    self._finish()
        finally:
            self._rows, self._new = [], []
            self._turns.close()
            self._stream = None

    # -- words ----------------------------------------------------------------------------------------------

    def _speak(self) -> None:
        """Tell the parties what the next step is: who leaves, what was chosen, who joins. The first word begins it."""
        at_parties = [(rows, i) for rows in self._rows for i in rows.there]
        if not at_parties:
            self._plan(self._new[0])
        leave = [place for place, (rows, i) in enumerate(at_parties) if i not in rows.live]
        kept = [rows.kept.get(i, []) for rows, i in at_parties] if self._drafts else []
        staying = [rows for rows in self._rows if rows.live]
        count = len(self._new) if at_parties else 1  # a request begins with one, whom others may join
        joining, self._new = self._new[:count], self._new[count:]
        self._rows = staying + joining
        for rows in self._rows:
            rows.there = rows.live
        fed = self._fed(staying)
        shared = [self._shared(rows.prompts, rows.width, rows.begun) for rows in joining]
        words: list[msg.Request] = []
        for rank in range(3):
            jobs = [self._job(rows, share[rank]) for rows, share in zip(joining, shared, strict=True)]
            tokens = self._input([1 + len(parents) for parents in fed[0]], fed[1][rank]) if fed else None
            parents = fed[0] if fed and self._drafts else []
            words.append(msg.Pace(True, tokens, leave, kept, parents, jobs) if at_parties else jobs[0])
        frames = [[share[rank].payload for share in (*([fed[1]] if fed else []), *shared)] for rank in range(3)]
        self._session.tell_next(words, frames, self._format(), new=not at_parties)

    def _fed(self, staying: Sequence[Rows]) -> tuple[list[list[int]], list[InputShare]] | None:
        """What the step reads of those that go on, if the client says so: of each its drafts' parents, and shares."""
        if not (self._drafts or self._reveal):
            return None
        each = [(rows.chosen[i], rows.drafts.get(i, NOTHING)) for rows in staying for i in rows.live]
        texts = [[token, *draft.tokens] for token, draft in each]
        return ([draft.follows for _, draft in each], self._shared(texts)) if texts else None

    def _listen(self) -> dict[Rows, dict[int, list[int]]]:
        """What the step has given; who has got all tokens is gone."""
        asked = self._rows
        places = [(rows, i) for rows in asked for i in rows.there]
        more = any(rows.left[i] > 1 for rows, i in places)  # else the parties wait for no word
        result = self._session.hear_next(self._format() if more else None)
        for rows in asked:
            rows.flagged, rows.kept = set(), {}
        for place in self._session.flagged:
            rows, i = places[place]
            rows.flagged.add(i)
        parts = result.split([sum(rows.reads) for rows in asked])
        found = {rows: self._tokens(rows, part) for rows, part in zip(asked, parts, strict=True)}
        for rows, tokens in found.items():
            self._count(rows, tokens)
        self._rows = [rows for rows in asked if rows.there]
        if not self._rows:
            self._finish()
        return found

    def _tokens(self, rows: Rows, part: Tensor) -> dict[int, list[int]]:
        """Of each prompt its next tokens, from the results of these."""
        if not self._drafts:
            tokens = rows.choose(part) if rows.choose else [int(index) for index in part]
            return {i: [token] for i, token in zip(rows.there, tokens, strict=True)}
        again = {i for i in rows.flagged if rows.drafts.get(i, NOTHING).tokens}
        rows.flagged, rows.alone = rows.flagged - again, again
        each = zip(rows.there, part.split(rows.reads), strict=True)
        return {i: [] if i in again else self._accepted(rows, i, mine) for i, mine in each}

    def _accepted(self, rows: Rows, i: int, results: Tensor) -> list[int]:
        draft = rows.drafts.get(i, NOTHING)
        found, rows.kept[i] = accepted(results, draft, rows.choose, i)
        if i in rows.chosen:  # else its prompt has been read, for which there is no draft
            self.counted.note(len(draft.tokens), len(found))
        return found

    def _count(self, rows: Rows, found: dict[int, list[int]]) -> None:
        """What each has got; those that are owed no more after one token, the parties have let go."""
        gone = {i for i in rows.there if rows.left[i] == 1}
        for i, tokens in found.items():
            rows.left[i] -= len(tokens)
            if tokens:
                rows.chosen[i] = tokens[-1]
            if rows.drafters:
                rows.drafters[i].learn(tokens)
        rows.there = [i for i in rows.there if i not in gone]
        rows.live = [i for i in rows.live if rows.left[i]]

    def _finish(self) -> None:
        """The parties go on no further: hear what it cost."""
        cost = cost_of(self._session.end_stream(), self._sent)
        self._session.cost = replace(cost, drafts=self.counted) if self._drafts else cost
        self._rows, self._sent = [], 0

    def _format(self) -> Format:
        """Of the result that all rows at the parties give."""
        reads = [read for rows in self._rows for read in rows.reads]
        wanted = msg.Generate(msg.Input([1] * sum(reads), []), 1, reveal=self._reveal)
        return answers(self._session.served, wanted)[0]._replace(flagged=len(reads))

    def _shared(
        self, prompts: Sequence[Sequence[int]], width: int = 0, begun: Sequence[int] = ()
    ) -> list[InputShare]:  # fmt: skip
        """Shares for the three parties, under seeds of their own."""
        config = self._session.served
        laid = laid_out(config, prompts, width, [begun] * len(prompts))
        self._sent += upload_bytes(config, msg.Input(laid.lengths, [], padded=bool(width), begun=len(begun)))
        return share_input(config, looked_up(config, laid, self._session.table))

    def _input(self, lengths: list[int], share: InputShare, padded: bool = False) -> msg.Input:
        return msg.Input(lengths, share.masks, share.choices, [], padded, self._session.approximation)

    def _plan(self, rows: Rows) -> None:
        """Which functions are quick in what is about to begin."""
        lengths, padded = [rows.width or len(ids) for ids in rows.prompts], bool(rows.width)
        how: dict[str, Any] = {"approximation": self._session.approximation, "begun": len(rows.begun)}
        bare = msg.Input(lengths, [], padded=padded, **how)
        asked = msg.Generate(bare, rows.tokens, temperature=rows.temperature, reveal=self._reveal, paced=True)
        self._quick = self._session.planned(asked).input.quick

    def _job(self, rows: Rows, share: InputShare) -> msg.Generate:
        lengths = [rows.width or len(ids) for ids in rows.prompts]
        how: dict[str, Any] = {"temperature": rows.temperature, "reveal": self._reveal, "drafts": self._drafts}
        own = {"quick": self._quick, "begun": len(rows.begun)}
        given = msgspec.structs.replace(self._input(lengths, share, bool(rows.width)), **own)
        return msg.Generate(given, rows.tokens, paced=True, **how)
