"""What everyone may know of a model: its config, its tokenizer, which tokens end a text. Clients work with no more.

It turns text into token ids and back. It must not know weights, shares or parties.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from puma.client.beam_search import Beams
from puma.client.lengths import check_padding
from puma.client.sentences import USUAL, Asked, Reading
from puma.client.tokens.rules import SEARCHED, UNSEEN, Following, Further, Rules
from puma.errors import CheckpointError, InputError, RangeError, RulesWarning, UsageError
from puma.models import heads, inputs, text
from puma.models.config import Config
from puma.models.files.source import SETTINGS
from puma.models.reading import wording
from puma.models.reading.cutting import Cut, Portion, pieces
from puma.models.reading.lacking import known
from puma.models.reading.languages import ends, in_language
from puma.models.reading.spelling import Spelling

MASKS = ("[MASK]", "<mask>")


class ModelInfo:
    """A model without its weights."""

    def __init__(self, name: str, config: Config, tokenizer: Tokenizer | None, eos: Sequence[int] = ()) -> None:
        self.name, self.config, self.eos = name, config, tuple(eos)
        self.tokenizer: Any = tokenizer  # None of an image model
        self.max_tokens: int | None = None  # of a request, prompts and answers together, where there is a limit
        self.hides = False  # whether its owner has proven that scores can be hidden in secret
        self.files: dict[str, Callable[[], bytes]] = {}  # what else travels with it, such as a chat template
        self._told = ""  # of rules that are not followed
        self.drafting: dict[str, Any] = {}  # what makes drafts for it, by name, once that has been read

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; empty where there is no classification head."""
        return heads(self.config).labels

    @property
    def output(self) -> str:
        """What an encoder is asked for: class logits if it can, else a vector."""
        return "logits" if self.labels else "pooled"

    def prompt_ids(self, prompt: str, tokens: int, special: bool = True, language: str = "") -> list[int]:
        """Token ids of a prompt that is to be continued, checked against the context.

        Without `special`, the prompt holds its special tokens already, as a chat template leaves it. A `language` is
        the code of the one that it is in, where that is another than the model's files say.
        """
        self.check_generates()
        if not inputs(self.config).tokenized:
            raise UsageError(f"{self.name} reads no texts", "transcribe sound with it")
        if tokens < 1:
            raise UsageError(f"cannot generate {tokens} tokens", "ask for at least one")
        ids = text.encode(self.tokenizer, self.config, prompt, special=special).ids
        ids = in_language(self.tokenizer, self.name, ids, language) if language else ids
        self.check_length(len(ids), tokens)
        return ids

    def check_generates(self) -> None:
        """UsageError for a model that continues no text."""
        if not heads(self.config).generates:
            raise UsageError(f"{self.name} does not generate text", "use encode, or a LLaMA or GPT-2 model")

    @cached_property
    def rules(self) -> Rules:
        """What its generation_config.json asks of how tokens are chosen."""
        return Rules.of(self.files)

    def begun(self, begin: str) -> list[int]:
        """The tokens of this text, with which answers are to begin, such as the code of a language; UsageError for what
        is no token, or where answers cannot begin with any."""
        reads, names = inputs(self.config), begin.split()
        if names and not (reads.apart and reads.tokenized):
            raise UsageError(f"answers of {self.name} go on from the prompt", "write their beginning behind it")
        if names and len(reads.begins) > 1:
            what = f"answers of {self.name} begin with {self.spelling.text(reads.begins[1])}, as its files say"
            raise UsageError(what, "leave out the beginning")
        found = {name: self.tokenizer.token_to_id(name) for name in names}
        for name, number in found.items():
            if number is None:
                raise UsageError(f"{self.name} has no token {name}", "write tokens, with spaces between them")
        return [found[name] for name in names]

    def following(
        self, prompts: Sequence[Sequence[int]], reveals: bool, begun: Sequence[int] = (), further: Further | None = None
    ) -> Following | None:  # fmt: skip
        """These rules for prompts that are about to be continued, if there are any; RulesWarning, once, about what is
        not followed. `reveals`: whether the client may see logits; all answers begin with the tokens `begun`, and
        `further` rules may come behind the model's."""
        self.warn_of_rules("" if reveals else UNSEEN)
        return self.ruled(prompts, begun, further) if reveals else None

    def ruled(
        self, prompts: Sequence[Sequence[int]], begun: Sequence[int] = (), further: Further | None = None
    ) -> Following | None:  # fmt: skip
        """The same without a word."""
        return self.rules.following(prompts, [*inputs(self.config).begins, *begun], self.eos, further)

    def searching(
        self, prompt: Sequence[int], beams: int, tokens: int, penalty: float, begun: Sequence[int] = (),
        further: Further | None = None,
    ) -> Beams:  # fmt: skip
        """A search for an answer to a prompt, by the model's rules; RulesWarning about those that are not followed.
        RangeError where beams could not be hidden from each other."""
        self.check_hiding("search greedily")
        self.warn_of_rules(SEARCHED)
        ruled = self.ruled([prompt], begun, further)
        return Beams(beams, tokens, self.eos, penalty, ruled, self.rules.forced_end)

    def unfollowed(self, why: str) -> str:
        """One line about rules that answers do without, `why` logits are of no use, if so; nothing if there is none."""
        asked, begins = heads(self.config), inputs(self.config).begins
        return self.rules.unfollowed(why, self.rules.by_parties(asked.barred, asked.barred_first, begins))

    def warn_of_rules(self, why: str = "") -> None:
        """RulesWarning about rules that are not followed, unless the same has been said; `why` logits are of no use."""
        what = self.unfollowed(why)
        if what not in ("", self._told):
            warnings.warn_explicit(what, RulesWarning, "puma.client", 1, registry={})
        self._told = what

    def check_length(self, prompt: int, tokens: int) -> None:
        """InputError for a prompt that with its new tokens is longer than the model's context, or than is allowed."""
        text.check_length(self.config, prompt, tokens)
        if self.max_tokens is not None and prompt + tokens > self.max_tokens:
            what = f"{tokens} new tokens after a prompt of {prompt} are more than the {self.max_tokens} of a request"
            raise InputError(what, "ask for fewer, or shorten the prompt; `puma cluster show` tells the limit")

    def sentence_ids(self, sentence: str, pair: str | None = None, asked: Asked = USUAL) -> text.Tokens:
        """Token ids of a text that is to be encoded, or of two, checked against the longest that the model reads."""
        return self.reading(sentence, pair, asked).tokens

    def reading(self, sentence: str, pair: str | None = None, asked: Asked = USUAL) -> Reading:
        """The same, with what goes before it as it is asked, and with what was left out; InputError for what is too
        long, unless it may be cut.
        """
        self.check_encodes()
        if not sentence.strip():
            raise InputError("the prompt is empty", "write at least one word")
        worded = asked.before(self.wording) + sentence
        tokens = text.encode(self.tokenizer, self.config, worded, pair)
        length, cut = len(tokens.ids), 0
        if length > self.longest and asked.truncate:
            tokens = text.encode(self._cutting, self.config, worded, pair)
            cut = length - len(tokens.ids)
        if len(tokens.ids) > self.longest:
            what = f"the text has {length} tokens, and the model's context {self.config.context}"
            what += f", of which it reads {self.longest}" if self.longest < self.config.context else ""
            raise InputError(what, "shorten it, or let it be cut by truncate=True (--truncate)")
        if self.before(asked) >= len(tokens.ids):
            raise InputError("what goes before a text leaves it no room", "use a shorter prompt")
        return Reading(tokens, cut)

    def framed(self, ids: Sequence[int]) -> Reading:
        """The same of token ids that are the model's own: with what its tokenizer puts around a text, by which ids of
        another tokenizer are told. InputError for others.
        """
        self.check_encodes()
        hint = "pass texts; in LangChain by check_embedding_ctx_length=False"
        whole = self.tokenizer.encode("a")
        first, last = ends(self.tokenizer)
        known = whole.ids[:first] == list(ids[:first]) and whole.ids[len(whole.ids) - last :] == list(
            ids[len(ids) - last :]
        )
        if not first + last < len(ids) or not first + last or not known or min(ids) < 0:
            raise InputError("these are not token ids of this model, with the special tokens around a text", hint)
        tokens = text.checked(self.config, list(ids), [0] * len(ids), hint)
        text.check_length(self.config, len(tokens.ids))
        return Reading(tokens)

    def before(self, asked: Asked = USUAL) -> int:
        """How many tokens at the beginning of each text do not count in its vector: those of what goes before it, in
        models that leave them out."""
        prompt = "" if self.wording.whole or self.labels else asked.before(self.wording)
        if not prompt:
            return 0
        encoding = self.tokenizer.encode(prompt)
        return len(encoding.ids) - (encoding.special_tokens_mask[-1:] == [1])

    @cached_property
    def wording(self) -> wording.Wording:
        """How texts are put to it, and what becomes of vectors, as its folder says."""
        content = self.files.get(wording.FILE)
        return wording.read(content()) if content else wording.Wording()

    @property
    def longest(self) -> int:
        """Tokens of the longest text to be encoded."""
        return min(self.config.context, self.wording.longest or self.config.context)

    @property
    def width(self) -> int:
        """Numbers of a vector, before any is left out."""
        return heads(self.config).pooling.width(self.config.hidden_size)

    @cached_property
    def _cutting(self) -> Tokenizer:
        """Its tokenizer, which leaves out what lies beyond the longest text."""
        found = Tokenizer.from_str(self.tokenizer.to_str())
        found.enable_truncation(self.longest, direction=self.wording.cut)
        return found

    def pieces(
        self, sentence: str, pair: str | None = None, cut: Cut = "", stride: int = 0, most: int = 0
    ) -> list[Portion]:  # fmt: skip
        """A text or a pair that is to be encoded, cut to what the model takes, or to `most` tokens where that is less;
        in several pieces where there is a `stride`, which is what they have in common.
        """
        self.check_encodes()
        if self.tokenizer is None:
            raise UsageError(f"{self.name} reads no texts", "pass it images, or use a model of texts")
        longest, left = self._limits if cut else (self.config.context, False)
        found = text.encoded(self.tokenizer, sentence, pair)
        each = pieces(found, min(most or longest, longest), cut, stride, left)
        return [self._read(piece) for piece in each]

    def whole(self, prompt: str) -> Portion:
        """A text that holds its special tokens already, as a chat template leaves it; InputError if it is too long."""
        self.check_encodes()
        (piece,) = pieces(text.encoded(self.tokenizer, prompt, special=False), self.config.context)
        return self._read(piece)

    def _read(self, piece: Portion) -> Portion:
        ids, types = text.checked(self.config, known(self.tokenizer, piece.ids), piece.types)
        left = len(ids)  # a model may take no notice of what a text ends with
        more = {"texts": piece.texts[:left], "spans": piece.spans[:left], "words": piece.words[:left]}
        return piece._replace(ids=ids, types=types, **more)

    @cached_property
    def _limits(self) -> tuple[int, bool]:
        """How many tokens a text may have, and whether what is cut off is its beginning, as its tokenizer says."""
        read = self.files.get(SETTINGS)
        try:
            settings = dict(json.loads(read())) if read else {}
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{SETTINGS} of {self.name} cannot be read", "download the model again") from error
        named = settings.get("model_max_length")
        longest = int(named) if isinstance(named, int | float) and 0 < named < self.config.context else None
        return longest or self.config.context, settings.get("truncation_side") == "left"

    def check_encodes(self) -> None:
        """UsageError for a model that is asked for text, and not for states or classes."""
        if not heads(self.config).encodes:
            raise UsageError(f"{self.name} is no encoder", "use generate, or a BERT model")

    @cached_property
    def spelling(self) -> Spelling:
        """What each token stands for."""
        return Spelling(self.tokenizer, self.config.vocab_size)

    def check_padding(self, generates: bool = False) -> None:
        """UsageError or RangeError unless texts of secret length can be padded, to be encoded or to be continued."""
        check_padding(self.config, generates)
        self.check_hiding("make the lengths of texts public")

    def check_hiding(self, hint: str) -> None:
        """RangeError unless scores of padding or of other beams can be hidden, as the card says."""
        if not self.hides:
            raise RangeError(f"the scores of {self.name} may be too wide for hiding some in secret", hint)

    def masked_places(self, tokens: text.Tokens) -> list[int]:
        """Where a text has the token that stands for a hidden one."""
        if not heads(self.config).predicts:
            raise UsageError(f"{self.name} has no head for masked tokens", "use a ForMaskedLM checkpoint")
        mask = next((i for i in map(self.tokenizer.token_to_id, MASKS) if i is not None), None)
        places = [i for i, token in enumerate(tokens.ids) if token == mask]
        if not places:
            raise InputError("no token of the text is masked", f"write {' or '.join(MASKS)} in the place of one")
        return places

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids as text."""
        return text.decode(self.tokenizer, ids)

    def finished(self, values: Tensor, asked: Asked = USUAL) -> Tensor:
        """What `output` becomes at the client: a vector's length costs nothing in the clear."""
        return values if self.labels else asked.vector(values, self.wording)
