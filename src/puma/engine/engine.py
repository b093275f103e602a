"""The work of one party on requests: one step for all that are under way. The same text serves a real party and a dry
one, and the computation in the clear.

A step knows nothing of how fast a client wants its tokens, who chooses them, or what is prepared: that is for those who
call it (generation, lookahead, offline phase). It must not know links, addresses or processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch

from puma.engine.request import Request, apart, by_cache, join, parts, whole
from puma.models import Cache, architecture, heads
from puma.models.config import Config
from puma.mpc.arithmetic import public, reshare
from puma.mpc.cost import Bytes, Words
from puma.mpc.fixed import ACTIVATION, LOGIT_REACH, RING, formatted
from puma.mpc.party import Party
from puma.mpc.retrieval import Mixed
from puma.mpc.share import Additive, Share
from puma.mpc.waits.drawn import foreseen
from puma.mpc.watch import Watch, watching
from puma.nn import functional as F
from puma.nn.sampling import sample
from puma.wire.answers import RING_OF_ANSWERS
from puma.wire.input_share import Flagged
from puma.wire.messages import NEXT, Encode, Generate, Spent

Emit = Callable[[Share], None]


class Engine:
    """One party's copy of a shared model."""

    def __init__(self, party: Party, config: Config, params: Mapping[str, Share]) -> None:
        self.party = party
        self.config = config
        self.model = architecture(config).model(config, params)
        self.named = dict(params)
        self.params = list(params.values())
        drawn = party.dry or party.is_dealer
        self.foreseen = None if drawn else foreseen(_in_use(config, params))  # what is done in waits, if anything
        asked = heads(config)
        self.reach = config.formats.places.get(asked.place, LOGIT_REACH)  # of logits
        self.barred = asked.barred, (*asked.barred, *asked.barred_first)  # of an answer's later tokens and its first
        self._preamble: Cache | None = None  # its words, while somebody goes on from it
        self._reading = threading.Lock()

    def preamble(self) -> Cache:
        """What a prompt goes on from that begins with the model's preamble: nobody computes that.

        Its shares are the parameters', with the masks that the owner gave them. They are multiplied as those of weights
        are, under fresh masks of each step, so requests of several clients may go on from it at a time.
        """
        with self._reading:
            found = self._preamble = self._preamble or self.model.preamble()
        return found.beginning(found.length)

    @torch.inference_mode()  # no tensor is asked how it came about: each call of torch takes less
    def step(self, requests: Sequence[Request]) -> None:
        """Advance each request by one: a prompt is read and gives its first result, a generation gives its next one,
        an encoder's request all that it asked for; `due` of each then holds it.

        Rows under way share one pass, and so do prompts that are new, and those that go on behind what has been read;
        their next tokens are sought together. Of a prompt that is read in part nothing is due yet. The caller sets the
        stage: all masks of a step come from streams that start with it.
        """
        self.party.quick = requests[0].job.input.quick  # who steps together has the same plan
        self.party.foreseen = self.foreseen
        for request in requests:
            request.due = []
        with self.party.gathering():
            self._step(requests)

    def _step(self, requests: Sequence[Request]) -> None:
        begun = [r for r in requests if r.cache is not None]
        new = [r for r in requests if r.cache is None and isinstance(r.job, Generate)]
        further = [r for r in begun if r.unread]
        apart(begun, further)
        passes = [self._pass(group) for group in self._together([r for r in begun if not r.unread])]
        passes += [self._pass(group) for group in _alike(new)]
        passes += [self._pass(join(by_cache(group))) for group in _alike(further)]
        self._decide([part for found in passes for part in found])
        for group in _alike([r for r in requests if isinstance(r.job, Encode)]):
            self._encode(group)
        self._flag(requests)

    def rest(self) -> None:
        """No request of this model is under way: what was drawn ahead takes no memory, nor do the preamble's words,
        which are the parameters' once more, nor does the party keep the model."""
        if self._reading.acquire(blocking=False):  # else somebody is about to go on from it
            self._preamble = None
            self._reading.release()
        if self.foreseen is not None:
            self.foreseen.forget()
        if self.party.foreseen is self.foreseen:
            self.party.foreseen = None

    def logits(self, read: object, cache: Cache, lengths: Sequence[int], ranked: bool) -> tuple[Any, Watch]:
        """The next logits (rows, vocabulary) of prompts of which so many rows are new, and who watched them."""
        with watching(self.party, lengths) as watch:
            return self.model(read, cache, ranked=ranked), watch

    def _flag(self, requests: Sequence[Request]) -> None:
        """The flags of all requests, under masks of their own: what the evaluators hold of them never leaves."""
        flagged = [(r, r.flags) for r in requests if isinstance(r.flags, Additive)]
        if not flagged:
            return
        flags = [words for _, words in flagged]
        with F.component("head", flags[0]):
            (opened,) = self.party.run(reshare(whole(flags)))
        for (request, _), mine in zip(flagged, parts(opened, [x.shape[0] for x in flags]), strict=True):
            request.flags = mine

    # -- generation -----------------------------------------------------------------------------------------

    def _together(self, going: Sequence[Request]) -> list[list[Request]]:
        """What goes through one pass: all rows of single texts, joined; the branches of a beam search by themselves."""
        groups = by_cache([r for r in going if r.beams == 1])
        return ([join(groups)] if groups else []) + [[r] for r in going if r.beams > 1]

    def _pass(self, group: Sequence[Request]) -> list[tuple[Request, Share | Additive]]:
        """Each request's next logits (rows, vocabulary), from one pass of the model; none where some of the prompt is
        still to be read."""
        cache, lengths = group[0].cache, [n for request in group for n in _lengths(request)]
        if cache is None:
            cache = Cache(self.config.layers, lengths)
            start = 0
            for request in group:
                request.cache, request.first, start = cache, start, start + len(request.owed)
        elif group[0].unread:
            cache.further(lengths)
        elif max(lengths) > 1 and group[0].beams == 1:
            cache.expect([parents for request in group for parents in request.follows])
        read = self._read(group)
        if isinstance(read, Flagged):
            cache.hide(read.flags)
            read = read.rows
        logits, watch = self.logits(read, cache, lengths, all(ranked(r) for r in group))
        _share_out(watch, group)
        if len(set(lengths)) > 1 and group[0].beams == 1:
            cache.close_up()
        counts = [sum(r.reads) for r in group] if len(group) > 1 else [logits.shape[0]]
        return [each for each in zip(group, parts(logits, counts), strict=True) if not each[0].unread]

    def _read(self, group: Sequence[Request]) -> object:
        """What the model reads: what outsiders shared, one-hot rows of the tokens that the last step gave, or some of
        each."""
        given, counts = [request.take() for request in group], [sum(request.reads) for request in group]
        tokens = [request.token for request, mine in zip(group, given, strict=True) if mine is None]
        chosen = [mine for mine in given if mine is not None]
        if not tokens:
            return whole(chosen)
        hot = self.fed(whole(tokens))
        return Mixed(whole(chosen), hot, _places(given, counts)) if chosen else hot

    def fed(self, token: Share) -> Share | Additive:
        """One-hot rows of tokens under masks of the present stage; a public table reads them without their being
        opened."""
        with F.component("embedding", token):
            (token,) = self.party.run(reshare(token.additive()))
            return F.one_hot(token, self.config.vocab_size, self.config.formats.open)

    def _decide(self, logits: Sequence[tuple[Request, Share | Additive]]) -> None:
        """The next token of each row: as shares of an index, which are fed again, or as logits for the client."""
        for (reveal, temperature, first), alike in groupby(sorted(logits, key=self._how), key=self._how):
            group = list(alike)
            rows = whole([x for _, x in group])
            with F.component("head", rows):
                found = settled(rows if reveal else sample(rows, temperature, self.reach, self.barred[first]))
            for (request, _), due in zip(group, parts(found, [x.shape[0] for _, x in group]), strict=True):
                request.due, request.token = [due], None if _fed(request) else due
                request.owed = [owed - 1 for owed in request.owed]

    def _how(self, found: tuple[Request, object]) -> tuple[bool, float, bool]:
        """How a token is chosen; what is chosen alike is chosen together."""
        request, (later, first) = found[0], self.barred
        begins = request.owed[0] == request.asked[0][1]
        return *_chosen(found), begins and first != later

    # -- encoders -------------------------------------------------------------------------------------------

    def _encode(self, group: Sequence[Request]) -> None:
        """Hidden states (tokens, d), one vector of each prompt (prompts, width), logits (prompts, labels) or (tokens,
        labels), the likeliest tokens (rows,), then the next ones, or logits of every next token (tokens, V).
        """
        job, given = group[0].job, whole([request.given for request in group])
        assert isinstance(job, Encode)
        lengths = [n for request in group for n in request.job.input.lengths]
        with watching(self.party, lengths) as watch:
            hidden = self._states(group, given, lengths)
            if job.output == "tokens":
                rows = _masked_rows(group)
                owners = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[rows]
                with watch.lying(owners):
                    result = self.model.predict(hidden, rows)
            elif job.output == "pooled":
                padding = given.flags if isinstance(given, Flagged) else None
                result = self.model.embed(hidden, lengths, job.skip, padding)
            else:
                result = self.model.classify(hidden, lengths) if job.output == "logits" else hidden
        _share_out(watch, group)
        if job.output == "tokens":
            self._predict(result, group)
            return
        each = result.shape[0] != len(lengths) or job.output in ("hidden", NEXT)
        counts = [r.job.input.tokens if each else len(r.job.input.lengths) for r in group]
        with F.component("head", hidden):
            for request, due in zip(group, parts(settled(result), counts), strict=True):
                request.due, request.owed = [due], [0]

    def _states(self, group: Sequence[Request], given: object, lengths: list[int]) -> Share | Additive:
        """The last hidden states of all tokens, or, if the next ones are asked for, their logits."""
        job = group[0].job
        assert isinstance(job, Encode)
        if job.output == NEXT:
            return self.model.every(given, Cache(self.config.layers, lengths))
        if isinstance(given, Flagged):
            return self.model.states(given.rows, lengths, [], given.flags)
        types = [t for request in group for t in request.job.input.types or [0] * request.job.input.tokens]
        return self.model.states(given, lengths, types if any(request.job.input.types for request in group) else [])

    def _predict(self, logits: Share | Additive, group: Sequence[Request]) -> None:
        """The most likely token of each row; then it is ruled out, and so on."""
        jobs = [r.job for r in group if isinstance(r.job, Encode)]
        top = jobs[0].top
        away = self.reach - (self.reach >= LOGIT_REACH)  # the usual reach has room for what has been answered
        with F.component("head", logits):
            for i in range(top):
                token = F.argmax(logits, max(self.reach, away + 1))
                for request, due in zip(group, parts(settled(token), [len(job.rows) for job in jobs]), strict=True):
                    request.due.append(due)
                    request.owed = [0]
                if i + 1 < top:
                    logits = logits - F.times(F.one_hot(token, self.config.vocab_size), 1 << away)


def _in_use(config: Config, params: Mapping[str, Share]) -> list[Share]:
    """The parameters in the order of the tree, which is that of their use: of what has several names some come late."""
    return [params[name] for name in architecture(config).parameters(config) if name in params]


def _masked_rows(group: Sequence[Request]) -> list[int]:
    """The rows that are to be predicted, counted through all tokens."""
    rows, start = list[int](), 0
    for request in group:
        assert isinstance(request.job, Encode)
        rows += [start + row for row in request.job.rows]
        start += request.job.input.tokens
    return rows


def _places(given: Sequence[object], counts: Sequence[int]) -> torch.Tensor:
    """Where the rows of requests, of each so many, stand among all those that were given and then the others."""
    there = torch.repeat_interleave(torch.tensor([mine is None for mine in given]), torch.tensor(counts))
    return torch.where(there, (~there).sum() + there.cumsum(0) - 1, (~there).cumsum(0) - 1)


def _share_out(watch: Watch, group: Sequence[Request]) -> None:
    """To each request the flags of its prompts, with those of what was read of them before; they wait while some is
    unread."""
    for request, flags in zip(group, parts(watch.words, [_prompts(r) for r in group]), strict=True):
        flags = flags if request.earlier is None else request.earlier + flags
        request.flags, request.earlier = (None, flags) if request.unread else (flags, None)


def _lengths(request: Request) -> list[int]:
    """How many rows a pass reads of each of its texts."""
    if request.cache is None and not request.partly:
        return list(request.job.input.lengths)
    return [request.width] if request.unread else [n * request.beams for n in request.reads[: _prompts(request)]]


def _prompts(request: Request) -> int:
    """How many of its prompts are under way: all texts of a beam search are one prompt's."""
    single = request.beams > 1 or isinstance(request.job, Encode)
    return len(request.job.input.lengths) if single else len(request.owed)


def _alike(requests: Sequence[Request]) -> list[list[Request]]:
    """New requests that one pass can compute."""
    groups: dict[tuple[object, ...], list[Request]] = {}
    for request in requests:
        job = request.job
        key = (job.output, job.top, job.skip) if isinstance(job, Encode) else (job.beams > 1 and id(request),)
        key = (*key, type(request.given), job.input.padded, job.input.begun)
        groups.setdefault(key, []).append(request)
    return list(groups.values())


def _chosen(found: tuple[Request, object]) -> tuple[bool, float]:
    """Who chooses the token, and how; what is chosen alike is chosen together."""
    job = found[0].job
    assert isinstance(job, Generate)
    return job.reveal, job.temperature


def _fed(request: Request) -> bool:
    """Whether the client sends what it reads."""
    return isinstance(request.job, Generate) and request.job.fed


def ranked(request: Request) -> bool:
    """Whether only matters which logit is the largest."""
    return not any(_chosen((request, None)))


def answered(party: Party, share: Share) -> None:
    """Book an output that leaves for the client."""
    party.ledger.sent(Bytes.of(Words(share.numel(), share.bits, 2)), online=True)


def settled(x: Share | Additive) -> Share:
    """A result in the format that wire.answers has for it: an untruncated one is opened, a larger ring cut for free."""
    if isinstance(x, Additive):
        (x,) = x.party.run(formatted((x, ACTIVATION, x.bits - x.frac + ACTIVATION)))
    return x.reduced(min(x.bits, RING_OF_ANSWERS)) if x.frac == ACTIVATION else x


def selftest(party: Party) -> Share:
    """GeLU of a few public numbers, so that every kind of message crosses every link."""
    x = public(party, torch.tensor(SELFTEST), (len(SELFTEST),), RING, ACTIVATION)
    return F.gelu(x)


SELFTEST = (-300.0 / 2, -1.0, 0.0, 0.5, 1.0, 100.0)


def spent(party: Party) -> list[Spent]:
    """The party's ledger by component, bytes with frame headers."""
    party.ledger.total()
    entries = party.ledger.entries.items()
    return [Spent(name, e.seconds, e.rounds, e.online_bytes, e.offline_bytes) for name, e in entries]
