"""What may be asked over HTTP: OpenAI's request bodies as strict structs, checked before anything is computed.

A parameter is honoured, or known to be without effect, or refused by name; none is ignored. This file must not know
clusters.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from puma.gateway.prompts import Asked, Message
from puma.gateway.refusals import Refused

MAX_CHOICES = 128
MAX_TEXTS = 2048  # of a request for embeddings, as at OpenAI
TRUNCATE = {True: True, False: False, "END": True, "NONE": False}  # as NVIDIA and Cohere say it, too
MAX_DOCUMENTS = 1000  # that are ranked for one query
MAX_CHARACTERS = 1 << 22  # of all its pairs: a query is read again with each document
SEEDS, MAX_TOP_K = range(-(1 << 63), 1 << 63), 1 << 31
MAX_STOPS, MAX_STOP_CHARACTERS = 4, 256
# Values that mean what is done anyway, so that they may be named; every other value of these parameters is refused.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "best_of": (1,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "web_search_options": (),
    "moderation": (),
}
T = TypeVar("T")


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What a stream holds besides its text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TextRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What completions and chats have in common. `user` and its like say who asks, and change nothing."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    service_tier: Any = None
    store: Any = None

    @property
    def choices(self) -> int:
        """How many answers to each prompt."""
        return 1 if self.n is None else self.n

    @property
    def stops(self) -> list[str]:
        """Strings that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


class CompletionRequest(TextRequest, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/completions; a prompt is text or token ids. Of models that read prompts apart answers may `begin` with
    tokens, and prompts be in another `language` than the model's files say."""

    prompt: str | list[str | int | list[int]]
    echo: bool | None = None
    begin: str | None = None
    language: str | None = None
    logprobs: int | None = None
    best_of: Any = None
    suffix: Any = None

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """All prompts of the request: texts, or lists of token ids."""
        return listed(self.prompt, "prompt")

    @property
    def alternatives(self) -> int | None:
        """How many likeliest tokens are named beside the chosen one; None where logarithms are not wanted."""
        return self.logprobs


class ChatRequest(TextRequest, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None
    moderation: Any = None

    @property
    def alternatives(self) -> int | None:
        """As of a completion."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def asked(self) -> Asked:
        """What becomes the prompt. Tools that must not be called are not shown, and a message that goes on is no new
        one."""
        tools = self.tools if self.tools and self.tool_choice != "none" else None
        go_on, answer = bool(self.continue_final_message), self.add_generation_prompt is not False
        return Asked(
            self.messages, tools, self.documents or None, answer and not go_on, go_on, self.chat_template_kwargs or {}
        )


class EmbeddingsRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/embeddings."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None
    prompt_name: str | None = None
    input_type: str | None = None
    truncate: bool | str | None = None
    normalize: bool | None = None

    @property
    def texts(self) -> list[str] | list[list[int]]:
        """What is to be encoded, one or several: texts, or lists of token ids."""
        return listed(self.input, "input")

    @property
    def cut(self) -> bool:
        """Whether a text that is too long is cut."""
        return self.truncate is not None and TRUNCATE[self.truncate]


def listed(found: Any, param: str) -> Any:
    """Texts, or lists of token ids, of which there may be one alone."""
    if isinstance(found, str) or (found and all(isinstance(one, int) for one in found)):
        found = [found]
    if any(type(one) is not type(found[0]) or isinstance(one, int) for one in found):
        raise Refused(f"{param} is a text, token ids, or a list of one of these", param)
    return found


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """A text that is to be ranked."""

    text: str


class RerankRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/rerank, with `documents`, or as text-embeddings-inference (TEI) has it with `texts`, and then perhaps
    without a model. `raw_scores` gives logits, and `truncate` false refuses what is too long, as TEI has them;
    `label` says which class counts where a model has several."""

    model: str | None = None
    query: str
    documents: list[str | Document] | None = None
    texts: list[str] | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    raw_scores: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right"] | None = None
    label: str | None = None
    user: str | None = None

    @property
    def given(self) -> list[str]:
        """What is to be ranked."""
        return self.texts or [one if isinstance(one, str) else one.text for one in self.documents or []]

    @property
    def shown(self) -> bool:
        """Whether each result is to say what it ranks."""
        return bool(self.return_documents or self.return_text)


_KINDS = (CompletionRequest, ChatRequest, EmbeddingsRequest, RerankRequest)
_decoders: dict[type, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(kind) for kind in _KINDS}


def read(body: bytes, kind: type[T]) -> T:
    """A request of this kind; Refused names the parameter that is wrong."""
    try:
        found: T = _decoders[kind].decode(body)
    except msgspec.ValidationError as error:
        message, param = _located(str(error))
        raise Refused(message, param) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise Refused("the body is nested too deeply") from None
    if isinstance(found, TextRequest):
        _check(found)
    if isinstance(found, EmbeddingsRequest):
        _check_embeddings(found)
    if isinstance(found, RerankRequest):
        _check_rerank(found)
    return found


def _located(text: str) -> tuple[str, str | None]:
    """What msgspec says of a wrong value, and the parameter's name."""
    message, _, place = text.partition(" - at `$")
    param = place.rstrip("`").lstrip(".").partition(".")[0].partition("[")[0] or None
    if "unknown field" in message:
        param = message.split("`")[1]
        message = f"there is no parameter {param}, or it cannot be honoured"
    elif "missing required field" in message:
        param = message.split("`")[1]
    return message[:1].lower() + message[1:], param


def _check_embeddings(asked: EmbeddingsRequest) -> None:
    if not 1 <= len(asked.texts) <= MAX_TEXTS:
        raise Refused(f"input holds from 1 to {MAX_TEXTS} texts", "input")
    if asked.encoding_format not in (None, "float", "base64"):
        raise Refused("encoding_format is float or base64", "encoding_format")
    if asked.truncate is not None and asked.truncate not in TRUNCATE:
        raise Refused('truncate is true or false, or as others say it "END" or "NONE"', "truncate")
    if asked.prompt_name is not None and asked.input_type is not None:
        raise Refused("prompt_name and input_type both name a prompt: leave one out", "input_type")


def _check(asked: TextRequest) -> None:
    for name, allowed in NEUTRAL.items():
        value = getattr(asked, name, None)
        alike = [x for x in allowed if x == value and isinstance(x, bool) == isinstance(value, bool)]
        if value is not None and not alike:
            raise Refused(f"{name} cannot be honoured: leave it out", name)
    if not 1 <= asked.choices <= MAX_CHOICES:
        raise Refused(f"n must be from 1 to {MAX_CHOICES}", "n")
    if asked.seed is not None and asked.seed not in SEEDS:
        raise Refused("seed must be a whole number of 64 bits", "seed")
    if asked.top_k is not None and asked.top_k > MAX_TOP_K:
        raise Refused(f"top_k must be up to {MAX_TOP_K}", "top_k")
    if len(asked.stops) > MAX_STOPS or any(not 0 < len(s) <= MAX_STOP_CHARACTERS for s in asked.stops):
        raise Refused(f"stop takes up to {MAX_STOPS} strings of 1 to {MAX_STOP_CHARACTERS} characters", "stop")
    if asked.stream_options is not None and not asked.stream:
        raise Refused("stream_options belong to a stream", "stream_options")
    if asked.stream_options is not None and asked.stream_options.include_obfuscation:
        raise Refused("include_obfuscation cannot be honoured: leave it out", "stream_options")
    if isinstance(asked, ChatRequest) and asked.top_logprobs is not None and not asked.logprobs:
        raise Refused("top_logprobs needs logprobs", "top_logprobs")
    if isinstance(asked, ChatRequest) and asked.continue_final_message and asked.add_generation_prompt:
        raise Refused("a prompt ends in the last message or begins a new one, not both", "continue_final_message")
    if isinstance(asked, ChatRequest) and asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise Refused("max_tokens is the old name of max_completion_tokens: give one of them", "max_tokens")


def _check_rerank(asked: RerankRequest) -> None:
    if asked.documents is not None and asked.texts is not None:
        raise Refused("documents and texts are two ways of saying the same", "texts")
    named = "documents" if asked.texts is None else "texts"
    if not 1 <= len(asked.given) <= MAX_DOCUMENTS:
        raise Refused(f"from 1 to {MAX_DOCUMENTS} {named} can be ranked", named)
    if sum(len(each) + len(asked.query) for each in asked.given) > MAX_CHARACTERS:
        what = f"the query, once for each of the {named}, and these have over {MAX_CHARACTERS} characters"
        raise Refused(what, "query")
    if not asked.query.strip():
        raise Refused("the query is empty", "query")
    if (empty := next((i for i, each in enumerate(asked.given) if not each.strip()), None)) is not None:
        raise Refused(f"{named}[{empty}] is empty: leave it out", named)
    if asked.model is None and asked.texts is None:
        raise Refused("the request names no model", "model")
    if asked.top_n is not None and asked.top_n < 1:
        raise Refused("top_n must be 1 or more", "top_n")
