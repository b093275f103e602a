"""Generations of several askers that go through the parties in one batch, a token at a time.

Each asker gets pieces of its own answers, and errors that are its own. It must not know HTTP, nor how long others wait.
"""

from __future__ import annotations

from contextlib import ExitStack

from puma.client.batch import Batch, Rows
from puma.client.channel import out_of_range
from puma.client.drafts.draft import Source
from puma.gateway import watch as watched
from puma.gateway.answers import Answers, Wanted, choosing
from puma.gateway.cluster import Cluster
from puma.gateway.jobs import Job
from puma.gateway.watch import noting
from puma.wire.limits import MOST_DRAFTS


class Together:
    """A batch that begins with one job; raises that one's own UsageError if it cannot begin."""

    def __init__(self, cluster: Cluster, first: Job, draft: Source | None = None) -> None:
        self._cluster, self._draft = cluster, draft
        self._rows: dict[Job, tuple[Rows, Answers]] = {}
        self._reveal = choosing(cluster, _wanted(first)).reveals
        with ExitStack() as stack:
            self._noted = stack.enter_context(noting(cluster.session, []))
            batch = Batch(cluster.session, self._reveal, cluster.model.max_tokens, MOST_DRAFTS if draft else 0)
            self._batch = stack.enter_context(batch)
            self._enter(first)
            self._stack = stack.pop_all()

    @property
    def jobs(self) -> list[Job]:
        """Those under way."""
        return [*self._rows]

    def __enter__(self) -> Together:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def takes(self, job: Job) -> bool:
        """Whether this job can join, or be refused, now: else it waits until others have left."""
        wanted = job.run
        if not (isinstance(wanted, Wanted) and wanted.paced):
            return False
        try:
            alike = choosing(self._cluster, wanted).reveals == self._reveal
        except Exception:
            return True  # `add` tells it
        asked = wanted.prompts, wanted.tokens
        return alike and (self._batch.fits(*asked) or not self._batch.fits(*asked, alone=True))

    def add(self, job: Job) -> None:
        """Let a job join at the next step; what is wrong with it is its asker's to hear, and nobody else's."""
        try:
            self._enter(job)
        except Exception as error:
            job.end(watched.FAILED, error)

    def _enter(self, job: Job) -> None:
        wanted = _wanted(job)
        how = choosing(self._cluster, wanted)
        asked = wanted.prompts, wanted.tokens, how.temperature, how.choose
        rows = self._batch.add(*asked, draft=self._draft, how=wanted.sampling)
        self._rows[job] = rows, Answers(self._cluster.model, wanted, how)
        self._noted.join(job.watch)

    def step(self) -> None:
        """The next token of every answer, or some with drafts; who has all it wants, or is gone, leaves."""
        self._leave([job for job in self._rows if job.left.is_set()])
        if self._batch.empty:
            return
        found, over = self._batch.step(), list[Job]()
        for job, (rows, answers) in self._rows.items():
            if rows not in found:
                continue  # it begins with the next step
            if rows.flagged and self._cluster.session.out_of_range == "refuse":
                self._give_up(job, answers, sorted(rows.flagged))
                over.append(job)
                continue
            try:
                answers.doubt(rows.flagged)
                for piece in answers.grow(found[rows]):
                    job.tell(piece)
                self._batch.drop(rows, answers.ended)
                answers.keep(rows.live)
            except Exception as error:  # of its own text
                job.end(watched.FAILED, error)
            if not rows.live or job.watch.state == watched.FAILED:
                over.append(job)
        self._leave(over)

    def _give_up(self, job: Job, answers: Answers, which: list[int]) -> None:
        """What may be wrong is not given to its asker, who hears why; all that came before was sound."""
        for piece in answers.given_up(which):
            job.tell(piece)
        job.end(watched.FAILED, out_of_range(which, len(_wanted(job).prompts)))

    def _leave(self, jobs: list[Job]) -> None:
        """These are over: the parties hear of it, and the askers, who may then look at the cost."""
        for job in jobs:
            self._batch.drop(self._rows[job][0])
        if jobs and self._batch.empty:
            self._batch.close()
        for job in jobs:
            self._noted.leave(job.watch)
            del self._rows[job]
            job.end(watched.STOPPED if job.left.is_set() else watched.DONE)


def _wanted(job: Job) -> Wanted:
    assert isinstance(job.run, Wanted)
    return job.run
