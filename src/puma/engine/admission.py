"""Which requests a party refuses, in one list: it trusts no client to have checked.

Must not know who asks beyond what it is told, nor how a request is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

from puma.errors import AdmissionError, InputError, PolicyError, UsageError
from puma.models import architecture, heads, inputs, preamble
from puma.models.config import Config
from puma.models.text import MAX_ELEMENTS, check_batch
from puma.nn.paper import MPCFORMER, SPLINE
from puma.nn.sampling import LEAST_TEMPERATURE, MOST_TEMPERATURE
from puma.nn.variants import HINT, checked
from puma.wire.beside.kept import PREAMBLE, Prefix
from puma.wire.limits import LEAST_NAME, MOST_CHOICES, MOST_TOP
from puma.wire.messages import NEXT, OUTPUTS, POLICY_HINT, Card, Encode, Generate
from puma.wire.policy import allow_output, allowed_outputs


@dataclass(frozen=True)
class Allowed:
    """What whoever asks may have of a model: outputs of one pass, logits step by step, tokens of a request.

    0 tokens stand for as many as the model takes.
    """

    outputs: tuple[str, ...]
    logits: bool = False
    tokens: int = 0


OWNER = Allowed(OUTPUTS, logits=True)  # whoever knows the weights learns nothing new


def to_clients(config: Config, card: Card | None, reveal_logits: bool, tokens: int) -> Allowed:
    """What clients may have: by the model's card, and by whether the cluster lets them see logits, and its tokens."""
    reveals = reveal_logits and card is not None and card.reveal_logits
    most = min(tokens, (card.max_tokens if card else 0) or tokens)
    return Allowed(allowed_outputs(config, card, reveals), reveals, most)


def total_tokens(job: Generate | Encode) -> int:
    """Tokens of all prompts and answers."""
    new = job.tokens * job.beams + job.input.begun if isinstance(job, Generate) else 0
    return job.input.tokens + new * len(job.input.lengths)


def in_pieces(config: Config, job: Generate | Encode) -> bool:
    """Whether several steps may read its prompt: a single one of public length, of a model that remembers columns."""
    alone = isinstance(job, Generate) and len(job.input.lengths) == 1 and not job.input.padded
    return alone and architecture(config).foresees(config)


def admit(config: Config, approximation: str, job: Generate | Encode, allowed: Allowed) -> None:
    """Refuse what cannot be served or is not `allowed`, before its prompts are read.

    The parties compute with this `approximation`. Raises InputError, UsageError, PolicyError, AdmissionError.
    """
    tokens, prompts = job.tokens if isinstance(job, Generate) else 1, job.input
    if prompts.approximation != approximation:
        raise UsageError(
            f"the parties compute with {approximation}, the request names {prompts.approximation}",
            "start the session with the approximation that is wanted",
        )
    if checked(prompts.quick) != prompts.quick:
        raise UsageError("a plan names each function once and in their order", HINT)
    _admit_tokens(job, allowed)
    beams, before = (job.beams, _before(job)) if isinstance(job, Generate) else (1, 0)
    check_batch(config, [before + length for length in prompts.lengths] * beams, tokens + prompts.begun)
    read = inputs(config)
    if prompts.begun and not (isinstance(job, Generate) and read.apart):
        raise UsageError("these answers cannot begin with tokens", "ask a model with an encoder for an answer")
    if read.rows and set(prompts.lengths) != {read.context}:
        raise InputError(f"an image has {read.context} rows", "name as many for each")
    if isinstance(job, Generate) and not heads(config).generates:
        raise UsageError("the model does not generate text", "ask it to encode")
    fitting = len(prompts.types) == prompts.tokens and all(0 <= t < read.types for t in prompts.types)
    if prompts.types and not fitting:
        raise InputError("the token types do not fit the prompt or the model", "leave them out")
    if isinstance(job, Encode) and job.output not in OUTPUTS:
        raise UsageError(f"there is no output {job.output[:40]}", f"choose one of {', '.join(OUTPUTS)}")
    if prompts.padded:
        _admit_padding(config, job)
    if isinstance(job, Generate):
        _admit_sampling(config, job, allowed)
        if job.keep or job.prefix is not None:
            _admit_kept(config, job)
        return
    allow_output(allowed.outputs, job.output)
    if job.skip and (job.output != "pooled" or job.skip >= min(prompts.lengths)):
        raise InputError(f"{job.skip} tokens of each text cannot be left out", "leave out fewer than a text has")
    if job.output == NEXT:
        _admit_logits(config, prompts.tokens)
    else:
        _admit_head(config, job)


def _admit_padding(config: Config, job: Generate | Encode) -> None:
    """Refuse secret lengths where padding would change the answer, or where something public tells them."""
    hint = "make the lengths public"
    if job.input.approximation == MPCFORMER:
        raise UsageError("mpcformer has no exponential in its softmax, and so cannot hide padding", hint)
    side = "front" if isinstance(job, Generate) else "behind"
    if inputs(config).pads != side or job.input.types or (isinstance(job, Generate) and job.beams > 1):
        raise UsageError("this cannot be asked about texts of secret length", f"{hint}, and leave out token types")


def _admit_tokens(job: Generate | Encode, allowed: Allowed) -> None:
    """Refuse to generate nothing, and more tokens than cluster and model allow."""
    if isinstance(job, Generate) and job.tokens < 1:
        raise UsageError("no tokens are to be generated", "ask for at least one")
    admit_tokens(total_tokens(job) + (_before(job) if isinstance(job, Generate) else 0), allowed)


def _before(job: Generate) -> int:
    """Tokens before its prompt."""
    return job.prefix.length if job.prefix is not None else 0


def _admit_kept(config: Config, job: Generate) -> None:
    """Refuse to keep what cannot be gone on from, and names that somebody could guess."""
    if not in_pieces(config, job) or job.beams > 1 or job.preprocessing:
        raise UsageError("this cannot be kept, nor go on from what is kept", "ask for one text, of public length")
    if job.keep and job.drafts:  # what the last step guessed is never cut: columns need not be the text's tokens
        raise UsageError("what was drafted is not kept", "leave out drafts, or keep nothing")
    names = [*([job.keep] if job.keep else []), *([job.prefix.id] if job.prefix is not None else [])]
    if job.prefix is not None and job.prefix.id == PREAMBLE:
        names.remove(PREAMBLE)
        _admit_preamble(config, job.prefix, job.input.approximation)
    if not all(len(name) >= LEAST_NAME for name in names) or (job.prefix is not None and not job.prefix.length):
        raise UsageError("what is kept has no such name", f"draw one of {LEAST_NAME} bytes or more")


def _admit_preamble(config: Config, prefix: Prefix, approximation: str) -> None:
    """Refuse anything but the whole preamble, and functions with which its owner did not compute it."""
    if prefix.length != len(preamble(config) or ()) or prefix.last:
        raise UsageError(f"the model has no preamble of {prefix.length} tokens", "send the whole text")
    if approximation != SPLINE:
        raise UsageError(f"the model's preamble is not one of {approximation}", "send the whole text")


def admit_tokens(wanted: int, allowed: Allowed) -> None:
    """Refuse more tokens at a time than cluster and model allow."""
    if allowed.tokens and wanted > allowed.tokens:
        most = f"at most {allowed.tokens} are allowed"
        what = f"the request takes {wanted} tokens, prompts and answers together, and {most}"
        raise AdmissionError(what, "shorten it; `puma cluster show` tells the cluster's limit")


def _admit_logits(config: Config, tokens: int) -> None:
    """Refuse logits of every next token where there are none, and more of them than fit into a frame."""
    if not heads(config).scores:
        raise UsageError("the model predicts no next token", "ask a causal model")
    if tokens * config.vocab_size > MAX_ELEMENTS:
        what = f"the logits of {tokens} tokens are too many for one request"
        raise InputError(what, "send fewer texts at a time")


def _admit_head(config: Config, job: Encode) -> None:
    """Refuse an output for which the model has no head, and rows that are not the prompts' or too many."""
    if job.output == "logits" and not heads(config).labels:
        raise UsageError("the model has no classification head", "use a checkpoint with one, named in config.json")
    if job.output != "tokens":
        if job.rows:
            raise UsageError(f"{job.output} have no masked places", "name them when asking for tokens only")
        return
    if not heads(config).predicts:
        raise UsageError("the model has no head for masked tokens", "use a ForMaskedLM checkpoint")
    if not job.rows or not all(0 <= row < job.input.tokens for row in job.rows):
        raise InputError("the masked places are not among the tokens", "name at least one, counted from 0")
    if not 1 <= job.top <= min(MOST_TOP, config.vocab_size):
        raise UsageError(f"the {job.top} most likely tokens make no answer", f"ask for 1 to {MOST_TOP}")
    # Each row has logits of the whole vocabulary, and each of its `top` answers compares them all once more.
    if len(job.rows) * config.vocab_size > MAX_ELEMENTS or len(job.rows) * job.top > MOST_CHOICES:
        what = f"{len(job.rows)} masked places and {job.top} answers for each are too many for one request"
        raise InputError(what, "name fewer places at a time")


def _admit_drafts(config: Config, job: Generate) -> None:
    """Refuse drafts where nobody waits for the client's word, or nothing can be taken back."""
    if not job.paced or job.beams > 1:
        raise UsageError("drafts are for single texts that go on step by step", "leave out beams or drafts")
    if not architecture(config).cuts(config):
        raise UsageError("a memory of constant size cannot take drafts back", "leave out drafts for this model")


def _admit_sampling(config: Config, job: Generate, allowed: Allowed) -> None:
    """Refuse what contradicts itself, and logits that whoever asks may not see."""
    if job.temperature and not LEAST_TEMPERATURE <= job.temperature <= MOST_TEMPERATURE:
        between = f"from {LEAST_TEMPERATURE} to {MOST_TEMPERATURE:g}"
        raise UsageError(f"cannot sample at temperature {job.temperature:g}", f"choose one {between}, or 0")
    if job.reveal and (job.temperature or not job.paced):
        raise UsageError("logits are revealed step by step, without noise", "let the client choose after each step")
    if job.beams > 1 and not (job.reveal and len(job.input.lengths) == 1):
        raise UsageError(
            "beams continue one prompt, as the client chooses from logits", "ask for logits, prompt by prompt"
        )
    if job.drafts:
        _admit_drafts(config, job)
    if job.preprocessing and job.paced:
        raise UsageError("what is prepared runs in one go", "leave out the preprocessing, or generate a fixed number")
    if job.reveal and not allowed.logits:
        raise PolicyError("the model's owner does not let clients see logits", POLICY_HINT)
