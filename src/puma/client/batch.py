"""Prompts of several askers in one generation: they join and leave between two steps, and each gets its own tokens.

The parties compute all rows of a step at once, which costs little more than one. They learn who joins and leaves when,
as they learn lengths. A batch is a stream of its session: nothing else is asked meanwhile. This file must not know who
the askers are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from torch import Tensor

from puma.client.cost import cost_of
from puma.client.session import Session
from puma.client.turns import Stream
from puma.errors import AdmissionError, PolicyError, PumaError, UsageError
from puma.models.text import check_batch
from puma.wire import messages as msg
from puma.wire.answers import Format, answers
from puma.wire.input_share import InputShare
from puma.wire.inputs import laid_out, looked_up, share_input, upload_bytes

Choose = Callable[[Tensor], list[int]]  # from the logits of each prompt, its next token


@dataclass(eq=False)
class Rows:
    """Prompts that were added together, and which of them are under way."""

    prompts: Sequence[Sequence[int]]
    tokens: int
    temperature: float
    choose: Choose | None
    live: list[int] = field(init=False)  # prompts that are to get more tokens
    there: list[int] = field(default_factory=list)  # and those that the parties think so of
    chosen: dict[int, int] = field(default_factory=dict)  # their latest tokens
    left: int = 0  # tokens that each of them is still to get
    flagged: set[int] = field(default_factory=set)  # of whose latest tokens a number has left its range

    def __post_init__(self) -> None:
        self.live, self.left = [*range(len(self.prompts))], self.tokens

    @property
    def asked(self) -> list[tuple[int, int]]:
        """Of each prompt under way its tokens, and the new ones."""
        return [(len(self.prompts[i]), self.tokens) for i in self.live]


class Batch:
    """A generation of a session that prompts join and leave; whether the client chooses tokens (`reveal`) is the same
    for all. `limit` is how many tokens, old and new, may be under way at a time, if the parties have one.

    Use it in a `with`, from one thread. PolicyError if the client may not choose.
    """

    def __init__(self, session: Session, reveal: bool = False, limit: int | None = None) -> None:
        if reveal and not session.reveals:
            raise PolicyError("the model's owner does not let clients see logits", msg.POLICY_HINT)
        self._session, self._reveal, self._limit = session, reveal, limit
        self._stream: Stream | None = None
        self._turns = ExitStack()
        self._rows: list[Rows] = []  # at the parties, in their order
        self._new: list[Rows] = []
        self._sent = 0  # bytes of shares

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
        self, prompts: Sequence[Sequence[int]], tokens: int, temperature: float = 0.0, choose: Choose | None = None
    ) -> Rows:
        """Let these prompts join at the next step; nothing is sent before.

        Raises InputError or AdmissionError for what does not fit, and UsageError for tokens that would be chosen in
        another way than the batch's.
        """
        if (choose is not None) != self._reveal or (choose is not None and temperature):
            raise UsageError("these tokens would be chosen in another way than the batch's", "make another batch")
        if tokens < 1:
            raise UsageError(f"cannot generate {tokens} tokens", "ask for at least one")
        laid_out(self._session.served, prompts)  # which refuses what are no tokens
        self._check([(len(ids), tokens) for ids in prompts])
        if not self.fits(prompts, tokens):
            raise AdmissionError("there is no room for these prompts now", "wait until others have left")
        rows = Rows([[*ids] for ids in prompts], tokens, temperature, choose)
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

    def step(self) -> dict[Rows, dict[int, int]]:
        """One step of all prompts under way: of those added together, by each one's number, its next token.

        A token that may be wrong, because a number left its range, is given like others; `flagged` names its prompt.
        UsageError if there are none. Any other error ends the session.
        """
        if self.empty:
            raise UsageError("nothing is under way in this batch", "add prompts first")
        if self._stream is None:
            self._stream = self._turns.enter_context(self._session.turns.stream())
        with self._stream:
            self._speak()
            return self._listen()

    def close(self) -> None:
        """Leave those that are under way; `cost` of the session is then this batch's."""
        try:
            if self._stream is not None and self._rows and not self._session.over:
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
        leave = [place for place, (rows, i) in enumerate(at_parties) if i not in rows.live]
        staying = [rows for rows in self._rows if rows.live]
        count = len(self._new) if at_parties else 1  # a request begins with one, whom others may join
        joining, self._new = self._new[:count], self._new[count:]
        self._rows = staying + joining
        for rows in self._rows:
            rows.there = rows.live
        chosen = [rows.chosen[i] for rows in staying for i in rows.live if rows.choose]
        fed = [self._shared([[token] for token in chosen])] if chosen else []
        shared = [self._shared(rows.prompts) for rows in joining]
        words: list[msg.Request] = []
        for rank in range(3):
            jobs = [self._job(rows, share[rank]) for rows, share in zip(joining, shared, strict=True)]
            tokens = self._input([1] * len(chosen), fed[0][rank]) if fed else None
            words.append(msg.Pace(True, tokens, leave, jobs) if at_parties else jobs[0])
        frames = [[share[rank].payload for share in (*fed, *shared)] for rank in range(3)]
        self._session.tell_next(words, frames, self._format(), new=not at_parties)

    def _listen(self) -> dict[Rows, dict[int, int]]:
        """What the step has given; who has got all tokens is gone."""
        asked = self._rows
        for rows in asked:
            rows.left -= 1
        self._rows = [rows for rows in asked if rows.left]
        result = self._session.hear_next(self._format() if self._rows else None)
        found: dict[Rows, dict[int, int]] = {}
        places = [(rows, i) for rows in asked for i in rows.there]
        for rows in asked:
            rows.flagged = set()
        for place in self._session.flagged:
            rows, i = places[place]
            rows.flagged.add(i)
        for rows, part in zip(asked, result.split([len(rows.there) for rows in asked]), strict=True):
            tokens = rows.choose(part) if rows.choose else [int(index) for index in part]
            rows.chosen = found[rows] = dict(zip(rows.there, tokens, strict=True))
            if not rows.left:
                rows.live = []
        if not self._rows:
            self._finish()
        return found

    def _finish(self) -> None:
        """The parties go on no further: hear what it cost."""
        self._session.cost = cost_of(self._session.end_stream(), self._sent)
        self._rows, self._sent = [], 0

    def _format(self) -> Format:
        """Of the result that all rows at the parties give."""
        rows = msg.Input([1] * sum(len(rows.live) for rows in self._rows), [])
        return answers(self._session.served, msg.Generate(rows, 1, reveal=self._reveal))[0]

    def _shared(self, prompts: Sequence[Sequence[int]]) -> list[InputShare]:
        """Shares for the three parties, under seeds of their own."""
        config = self._session.served
        laid = laid_out(config, prompts)
        self._sent += upload_bytes(config, msg.Input(laid.lengths, []))
        return share_input(config, looked_up(config, laid, self._session.table))

    def _input(self, lengths: list[int], share: InputShare) -> msg.Input:
        return msg.Input(lengths, share.masks, share.choices, approximation=self._session.approximation)

    def _job(self, rows: Rows, share: InputShare) -> msg.Generate:
        given = self._input([len(ids) for ids in rows.prompts], share)
        return msg.Generate(given, rows.tokens, temperature=rows.temperature, reveal=self._reveal, paced=True)
