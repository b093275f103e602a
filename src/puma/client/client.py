"""What a client can ask a model, wherever its parties run: text in, text or numbers out.

It must not know where the session leads to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from puma.client import arguments
from puma.client.answering import drafted
from puma.client.answering.answers import Answer, Encoding
from puma.client.beam_search import Beams
from puma.client.channel import Judgement, counted, judgement
from puma.client.cost import Cost, added
from puma.client.drafts.opening import Source, opened, refused
from puma.client.evidence.receipt import Receipt
from puma.client.heads import asking, entities, labels, ranking, spans
from puma.client.heads.entities import Entity, Joined
from puma.client.heads.labels import Classified
from puma.client.heads.ranking import Ranked
from puma.client.heads.spans import Quote
from puma.client.lengths import secret_length
from puma.client.model_info import ModelInfo
from puma.client.sampling import Sampling
from puma.client.sentences import Asked, Reading, divided
from puma.client.session import Session
from puma.client.speech import transcripts
from puma.client.speech.transcripts import Transcript
from puma.client.tokens.ending import Ended, Stop, until, up_to_end
from puma.client.tokens.remembered import Remembered
from puma.errors import InputError, UsageError
from puma.models import inputs
from puma.models.reading.cutting import Cut
from puma.store.prepared_requests import PreparedRequest
from puma.wire.limits import MOST_TOP
from puma.wire.messages import Encode, Input
from puma.wire.request_shapes import shaped

Sentence = str | tuple[str, str]  # or two that belong together, such as a question and a passage
AHEAD = 4  # tokens of a stream that the parties may be ahead of its reader: no wait, and little to wait for once left


class Client(ABC):
    """The questions. A subclass says which model and which session; `close` ends both."""

    model: ModelInfo

    @property
    @abstractmethod
    def session(self) -> Session:
        """The session that answers, made when it is first asked for."""
        ...

    @property
    def out_of_range(self) -> Judgement:
        """What becomes of an answer that may be wrong, because a number left its range: "refuse" raises OutOfRange,
        "warn" gives it with an OutOfRangeWarning."""
        return self.session.out_of_range

    @out_of_range.setter
    def out_of_range(self, value: Judgement) -> None:
        self.session.out_of_range = judgement(value)

    @abstractmethod
    def close(self) -> None:
        """End the session; harmless when repeated."""
        ...

    def stream(
        self, prompt: str, tokens: int = 32, stop: Stop = None, lengths: str = "public", padded: int = 0,
        begin: str = "", draft: Any = None, language: str = "", **sampling: Any,
    ) -> Iterator[int]:  # fmt: skip
        """Token ids as they are decided; `cost` afterwards. All else is as for `generate`."""
        tokens = arguments.count(tokens, "tokens")
        ids = self.model.prompt_ids(arguments.text(prompt), tokens, language=arguments.text(language))
        return self.stream_ids(ids, tokens, stop, lengths, padded, begin, draft, **sampling)

    def stream_ids(
        self, ids: Sequence[int], tokens: int, stop: Stop = None, lengths: str = "public", padded: int = 0,
        begin: str = "", draft: Any = None, memory: Remembered | None = None, **sampling: Any,
    ) -> Iterator[int]:  # fmt: skip
        """The same for a prompt that is token ids already; a `memory`, as a conversation has it, is gone on from."""
        ids, tokens, how = arguments.token_ids(ids), arguments.count(tokens, "tokens", 1), Sampling.of(**sampling)
        self.model.check_length(len(ids), tokens)
        bucket = self.bucket([ids], tokens, lengths, padded, begin) or {"memory": memory}
        ended, source = self._until(stop, 1), opened(draft, self.model)
        steps = self.steps([ids], tokens, ended, how, bucket, source, AHEAD)
        return (token for (new,) in steps for token in new)

    def bucket(
        self, prompts: Sequence[Sequence[int]], tokens: int, lengths: str, padded: int, begin: str = ""
    ) -> dict[str, Any]:  # fmt: skip
        """How a session is asked to continue prompts of these `lengths`, "public" or "secret", by answers that `begin`
        so; InputError if they are too long when padded.
        """
        padded, begun = self._check_lengths(lengths, padded, generates=True), self.model.begun(arguments.text(begin))
        if lengths == "public":
            return {"begun": [begun] * len(prompts)} if begun else {}
        width = secret_length(self.model.config, prompts, (), padded, tokens)
        self.model.check_length(width, tokens)
        return {"lengths": lengths, "padded": width}

    @overload
    def generate(
        self, prompt: str, tokens: int = 32, stop: Stop = None, lengths: str = "public", padded: int = 0,
        begin: str = "", draft: Any = None, language: str = "", **sampling: Any,
    ) -> Answer: ...  # fmt: skip

    @overload
    def generate(
        self, prompt: Sequence[str], tokens: int = 32, stop: Stop = None, lengths: str = "public", padded: int = 0,
        begin: str = "", draft: Any = None, language: str = "", **sampling: Any,
    ) -> list[Answer]: ...  # fmt: skip

    def generate(
        self, prompt: str | Sequence[str], tokens: int = 32, stop: Stop = None, lengths: str = "public",
        padded: int = 0, begin: str = "", draft: Any = None, language: str = "", **sampling: Any,
    ) -> Answer | list[Answer]:  # fmt: skip
        """Continuation by a public number of tokens: of a prompt, or of several in one request.

        Greedy, unless `sampling` names a temperature, top_k, top_p or seed; the last three need logits, which the
        model's owner must let clients see. With `stop="eos"` it ends earlier where the text ends. After each token the
        parties then wait for the client's word, one more round trip, and they learn how long the answer is (the longest
        one, of several prompts). They learn how many tokens each prompt has, unless `lengths` is "secret": then a
        common length that all are padded to, the next power of two from 16 on or `padded`. In models that read the
        prompt apart, answers `begin` with these tokens, such as a language's code; the parties learn how many. The code
        of the `language` that a prompt is in, where the model's files say another, they do not learn.

        With a `draft`, "lookup" or the folder of a small model of the same tokenizer, the client guesses what follows,
        and a step decides several tokens of the same answer; the parties learn how many guesses were right.
        """
        prompts, tokens = arguments.texts(prompt), arguments.count(tokens, "tokens")
        how, ended = Sampling.of(**sampling), self._until(stop, len(prompts))
        ids = [self.model.prompt_ids(p, tokens, language=arguments.text(language)) for p in prompts]
        bucket, source = self.bucket(ids, tokens, lengths, padded, begin), opened(draft, self.model)
        steps = zip(*self.steps(ids, tokens, ended, how, bucket, source), strict=True)
        found = [up_to_end([t for new in mine for t in new], self.model.eos if stop else ()) for mine in steps]
        answers = [Answer(self.decode(new), new, self.cost, self.receipt) for new in found]
        return answers[0] if isinstance(prompt, str) else answers

    def steps(
        self, prompts: Sequence[Sequence[int]], tokens: int, ended: Ended | None, how: Sampling,
        bucket: dict[str, Any], draft: Source | None, ahead: int = 0,
    ) -> Iterator[list[list[int]]]:  # fmt: skip
        """Of each prompt the tokens that a step decides, step by step: one, or with drafts any number."""
        return drafted.steps(self.session, self.model, prompts, tokens, ended, how, bucket, draft, ahead)

    def _until(self, stop: Stop, prompts: int) -> Ended | None:
        return until(stop, self.model.eos, prompts, self.model.name)

    def search(
        self, prompt: str, tokens: int = 32, beams: int = 4, length_penalty: float = 1.0, stop: Stop = None,
        progress: Callable[[int], None] | None = None, begin: str = "", draft: Any = None, language: str = "",
    ) -> Answer:  # fmt: skip
        """The continuation that a beam search finds, of up to so many tokens; it needs logits, see `generate`.

        It ends where the text ends, and the parties learn that with `stop="eos"` only. `progress` is told each step.
        """
        refused(draft)
        tokens, beams = arguments.count(tokens, "tokens"), arguments.count(beams, "beams")
        prompt, progress = arguments.text(prompt), arguments.callback(progress, "progress")
        penalty, begun = arguments.number(length_penalty, "a length penalty"), self.model.begun(arguments.text(begin))
        Beams(beams, tokens, penalty=penalty)  # refused before anything is sent
        ids = self.model.prompt_ids(prompt, tokens, language=arguments.text(language))
        ends = self._until(stop, 1) is not None
        found = self.model.searching(ids, beams, tokens, penalty, begun)
        for step in self.session.search(ids, found, ends, begun):
            if progress:
                progress(step)
        return Answer(self.decode(found.best), found.best, self.cost, self.receipt)

    def transcribe(
        self, sound: str | Path | bytes | Tensor, language: str | None = None, task: transcripts.Task = "transcribe",
        tokens: int = 0, beams: int = 1, length_penalty: float = 1.0, progress: transcripts.Progress | None = None,
        times: bool = False,
    ) -> Transcript:  # fmt: skip
        """What is said in a file of sound, in its bytes or in samples (n,) at 16 kHz between -1 and 1, by a Whisper
        model; with the task "translate" in English.

        Window by window of 30 seconds, of up to so many `tokens` each (0: as many as it gives). The parties learn how
        many windows there are and how long each answer is. The `language` is a code such as "en"; left out, it is told
        by the first window, which needs logits, as a search by `beams` does, and as `times` do: of each part of what is
        said when that begins and ends, after which the next window begins.
        """
        wanted = transcripts.Wanted.of(language, task, tokens, beams, length_penalty, times)
        progress = arguments.callback(progress, "progress")
        return transcripts.transcribe(self.session, self.model, sound, wanted, progress)

    @overload
    def encode(self, sentence: Sentence, lengths: str = "public", padded: int = 0, **asked: Any) -> Encoding: ...

    @overload
    def encode(
        self, sentence: list[Sentence] | list[str], lengths: str = "public", padded: int = 0, **asked: Any
    ) -> list[Encoding]: ...

    def encode(
        self, sentence: Sentence | list[Sentence] | list[str], lengths: str = "public", padded: int = 0, **asked: Any
    ) -> Encoding | list[Encoding]:
        """Class logits if the model has a classification head, else one vector, as sentence-transformers gives it: by
        the pooling and the modules behind it that the model's folder names, and where it names none the mean of the
        token states, normalised.

        Of a sentence, of two that belong together, in a tuple, or of several such in a list: in one request, or in as
        many as the parties' memory takes, one after the other. They learn how many tokens each has, unless `lengths` is
        "secret": then a common length that all are padded to, the next power of two or `padded`. `asked` is any of
        `prompt_name`, `prompt`, `truncate`, `dimensions` and `normalize` (client/sentences.py).
        """
        found = [one for part in self.encoding(sentence, lengths, padded, **asked) for one in part]
        return found[0] if isinstance(sentence, str | tuple) else found

    def encoding(
        self, sentence: Sentence | list[Sentence] | list[str], lengths: str = "public", padded: int = 0, **asked: Any
    ) -> Iterator[list[Encoding]]:
        """The same, request by request; `cost` is that of all so far."""
        how, padded = Asked.of(**asked), self._check_lengths(lengths, padded)
        how.check(self.model.width)
        read = [self.model.reading(*each, how) for each in arguments.sentences(sentence)]
        if not read:
            raise InputError("there is no prompt", "pass at least one")
        return self.encoded(read, how, lengths, padded)

    def encoded(
        self, read: Sequence[Reading], how: Asked, lengths: str = "public", padded: int = 0
    ) -> Iterator[list[Encoding]]:
        """The same of texts as the model reads them, checked."""
        tokens = [each.tokens for each in read]
        if lengths == "secret":  # of all requests alike
            every = [each.ids for each in tokens], [each.types for each in tokens]
            padded = secret_length(self.model.config, *every, padded)
        rows = [inputs(self.model.config).length(len(each.ids)) for each in tokens]
        skip, costs, doubtful = 0 if self.model.labels else self.model.before(how), list[Cost](), set[int]()
        for part in divided(self.model.config, rows, self.model.max_tokens, padded if lengths == "secret" else 0):
            ids, types = [each.ids for each in tokens[part]], [each.types for each in tokens[part]]
            with counted(part.start, len(tokens)):
                values = self.session.encode(ids, self.model.output, types, skip, lengths, padded)
            costs.append(self.cost)
            doubtful |= {part.start + i for i in self.session.doubtful}
            self.session.cost, self.session.doubtful = added(costs) if costs[1:] else costs[0], set(doubtful)
            found = [self.model.finished(x, how) for x in values]
            both = zip(found, read[part], strict=True)
            yield [Encoding(x, self.cost, each.left_out, self.receipt) for x, each in both]

    def rank(
        self, query: str, texts: Sequence[str], top: int | None = None, label: str | None = None,
        cut: Cut = "longest_first", raw: bool = False, lengths: str = "public", padded: int = 0,
        progress: asking.Progress | None = None,
    ) -> list[Ranked]:  # fmt: skip
        """Texts in the order of how well they answer a query, the `top` ones of them; by a model that reads the query
        and a text together and has a head for classes (a cross-encoder), or by one for choices.

        The scores are the model's own, as sentence-transformers' CrossEncoder gives them; of a model with several
        labels that of one `label`. With `raw` they are logits. Pairs that are too long are cut as `cut` says, and say
        so; "" refuses them. All go to the parties together, or in several requests where they are too many. The parties
        learn how many texts there are and how many tokens each pair has; `lengths` and `padded` are as for `encode`.
        """
        *_, found = self.ranking(query, texts, top, label, cut, raw, lengths, padded, progress)
        return found

    def ranking(
        self, query: str, texts: Sequence[str], top: int | None = None, label: str | None = None,
        cut: Cut = "longest_first", raw: bool = False, lengths: str = "public", padded: int = 0,
        progress: asking.Progress | None = None,
    ) -> Iterator[list[Ranked]]:  # fmt: skip
        """The same, request by request: nothing after each but the last. Whoever leaves it sends no more."""
        how = (top, label, cut, raw, lengths, self._check_lengths(lengths, padded), progress)
        return ranking.ranking(self.session, self.model, query, texts, *how)

    @overload
    def classify(self, sentence: Sentence, cut: Cut = "", lengths: str = "public", padded: int = 0) -> Classified: ...

    @overload
    def classify(
        self, sentence: list[Sentence] | list[str], cut: Cut = "", lengths: str = "public", padded: int = 0
    ) -> list[Classified]: ...

    def classify(
        self, sentence: Sentence | list[Sentence] | list[str], cut: Cut = "", lengths: str = "public", padded: int = 0
    ) -> Classified | list[Classified]:
        """The classes of a text, of a pair in a tuple, or of several such in a list, with their scores, best first: the
        softmax, or what the model's problem_type says.

        What is too long is refused, unless `cut` says what is cut off. `lengths` and `padded` are as for `encode`.
        """
        padded = self._check_lengths(lengths, padded)
        found = labels.classify(self.session, self.model, arguments.sentences(sentence), cut, lengths, padded)
        return found[0] if isinstance(sentence, str | tuple) else found

    def zero_shot(
        self, text: str, names: Sequence[str], hypothesis: str = labels.HYPOTHESIS, multi_label: bool = False,
        entails: str | None = None, lengths: str = "public", padded: int = 0,
    ) -> Classified:  # fmt: skip
        """The classes that a client `names`, with their scores, best first, by a model that says what follows from a
        text: each is put into the `hypothesis`, and of a text that is too long the end is cut off.

        With `multi_label` each is judged by itself. `entails` names the model's label for what follows, if it does not
        begin with "entail". The parties learn how many names there are and how long each pair is.
        """
        how = (hypothesis, multi_label, entails, lengths, self._check_lengths(lengths, padded))
        return labels.zero_shot(self.session, self.model, text, names, *how)

    def answer(
        self, question: str, text: str, top: int = 1, longest: int = spans.LONGEST, nothing: bool = False,
        window: int = spans.WINDOW, stride: int = spans.STRIDE,
    ) -> list[Quote]:  # fmt: skip
        """The `top` best answers that stand in a text, best first, of up to `longest` tokens each; with `nothing` one
        may be that there is none, for models that were trained so.

        A text that is too long is read in pieces of `window` tokens, the question in each, with `stride` tokens in
        common. The parties learn how long each piece is.
        """
        return spans.answer(self.session, self.model, question, text, top, longest, nothing, window, stride)

    def entities(self, text: str, join: Joined = "simple", stride: int = 0) -> list[Entity]:
        """What a text names, with a class and a score each, by a model with a head for tokens; "O" is left out.

        `join` says how tokens become parts: "simple" joins neighbours of one class (B- begins, I- goes on); "first",
        "average" and "max" let the tokens of a word agree before; "none" joins nothing. With a `stride` a text that is
        too long is read in pieces, which have so many tokens in common; else it is refused.
        """
        return entities.entities(self.session, self.model, text, join, stride)

    def _check_lengths(self, lengths: str, padded: int, generates: bool = False) -> int:
        """`padded`, if both make sense together."""
        if arguments.one_of(lengths, "lengths", ("public", "secret")) == "secret":
            self.model.check_padding(generates)
        return arguments.count(padded, "padded", 0)

    def fill(self, text: str, top: int = 5, lengths: str = "public", padded: int = 0) -> list[list[str]]:
        """The most likely tokens at each place of a text that says [MASK] or <mask>, best first.

        The parties learn the places, and nothing of the tokens; `lengths` and `padded` are as for `encode`.
        """
        padded, top = self._check_lengths(lengths, padded), arguments.count(top, "top")
        if not 1 <= top <= min(MOST_TOP, self.model.config.vocab_size):
            raise UsageError(f"the {top} most likely tokens make no answer", f"ask for 1 to {MOST_TOP}")
        tokens = self.model.sentence_ids(arguments.text(text))
        places = [self.model.masked_places(tokens)]
        (found,) = self.session.fill([tokens.ids], places, top, [tokens.types], lengths, padded)
        return [[self.decode([token]) for token in ranked] for ranked in found]

    def prepare(self, prompt: int, tokens: int | None = None, batch: int = 1) -> PreparedRequest:
        """Let the parties do ahead what a request of this shape needs no input for: prompts of a length, new tokens.

        An encoder takes no `tokens`. The next request of exactly this shape uses it up, in this cluster or a later one
        with the same store.
        """
        return self._prepare(self.session, prompt, tokens, batch)

    def _prepare(self, session: Session, prompt: int, tokens: int | None, batch: int) -> PreparedRequest:
        prompt, batch = arguments.count(prompt, "prompt"), arguments.count(batch, "batch")
        tokens = None if tokens is None else arguments.count(tokens, "tokens")
        request = shaped(self.model.config, prompt, tokens, batch)
        if isinstance(request, Encode):
            request = Encode(Input(request.input.lengths, [], [], [0] * request.input.tokens), self.model.output)
        return session.prepare(request)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens; InputError if one is not in the vocabulary."""
        ids = arguments.token_ids(ids)
        if ids and max(ids) >= self.model.config.vocab_size:
            raise InputError(f"token {max(ids)} is not in the vocabulary", "pass ids that the model gave")
        return self.model.decode(ids)

    @property
    def cost(self) -> Cost:
        """What the last request of this thread cost, or the last of all if this thread has made none."""
        if self.session.cost is None:
            raise UsageError("no request has finished yet", "run generate or encode first")
        return self.session.cost

    @property
    def receipt(self) -> Receipt | None:
        """What the parties signed of the last request of this thread, checked (docs/receipts.md); None where they sign
        nothing. Of several requests for one question, it is that of the last."""
        return self.session.receipt
