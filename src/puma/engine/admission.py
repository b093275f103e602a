"""Which requests a party refuses, in one list: it trusts no client to have checked.

Must not know who asks beyond what it is told, nor how a request is computed.
"""

from __future__ import annotations

from puma.errors import InputError, UsageError
from puma.models import architecture
from puma.models.config import Config, Encoder, Vit
from puma.models.text import MAX_ELEMENTS, check_batch
from puma.nn.sampling import LEAST_TEMPERATURE, MOST_TEMPERATURE
from puma.wire.limits import MOST_TOP
from puma.wire.messages import NEXT, OUTPUTS, Encode, Generate


def admit(config: Config, approximation: str, job: Generate | Encode, owner: bool = False) -> None:
    """Refuse what cannot be served, before its prompts are read: a party trusts no client to have checked.

    The parties compute with this `approximation`; `owner` says that whoever asks is known to own the model,
    and may see what would give it away.
    """
    tokens, prompts = job.tokens if isinstance(job, Generate) else 1, job.input
    if prompts.approximation != approximation:
        raise UsageError(
            f"the parties compute with {approximation}, the request names {prompts.approximation}",
            "start the session with the approximation that is wanted",
        )
    beams = job.beams if isinstance(job, Generate) else 1
    check_batch(config, prompts.lengths * beams, tokens)
    if isinstance(config, Vit) and set(prompts.lengths) != {config.context}:
        raise InputError(f"an image has {config.context} rows", "name as many for each")
    if isinstance(job, Generate) and (architecture(config).family != "causal" or config.labels):
        raise UsageError("the model does not generate text", "ask it to encode")
    kinds = max(1, getattr(config, "type_vocab_size", 1))
    if prompts.types and (len(prompts.types) != prompts.tokens or not all(0 <= t < kinds for t in prompts.types)):
        raise InputError("the token types do not fit the prompt or the model", "leave them out")
    if isinstance(job, Encode) and job.output not in OUTPUTS:
        raise UsageError(f"there is no output {job.output}", f"choose one of {', '.join(OUTPUTS)}")
    if prompts.padded and not (isinstance(config, Encoder) and isinstance(job, Encode) and not prompts.types):
        raise UsageError("only encoders can be asked about texts of secret length", "make the lengths public")
    if isinstance(job, Generate):
        _admit_sampling(job)
    elif job.output == NEXT:
        _admit_logits(config, prompts.tokens, owner)
    else:
        _admit_head(config, job)


def _admit_logits(config: Config, tokens: int, owner: bool) -> None:
    """Refuse logits of every next token to all but the owner, and more of them than fit into a frame."""
    if not owner:
        raise UsageError("logits of all tokens are for the model's owner alone", "ask for generated tokens")
    if architecture(config).family != "causal" or config.labels:
        raise UsageError("the model predicts no next token", "ask a causal model")
    if tokens * config.vocab_size > MAX_ELEMENTS:
        what = f"the logits of {tokens} tokens are too many for one request"
        raise InputError(what, "send fewer texts at a time")


def _admit_head(config: Config, job: Encode) -> None:
    """Refuse an output for which the model has no head, and rows that are not the prompts'."""
    if job.output == "logits" and not getattr(config, "labels", ()):
        raise UsageError("the model has no classification head", "use a checkpoint with one, named in config.json")
    if job.output != "tokens":
        return
    if not getattr(config, "predicts", False):
        raise UsageError("the model has no head for masked tokens", "use a ForMaskedLM checkpoint")
    if not job.rows or not all(0 <= row < job.input.tokens for row in job.rows):
        raise InputError("the masked places are not among the tokens", "name at least one, counted from 0")
    if not 1 <= job.top <= min(MOST_TOP, config.vocab_size):
        raise UsageError(f"the {job.top} most likely tokens make no answer", f"ask for 1 to {MOST_TOP}")


def _admit_sampling(job: Generate) -> None:
    """Refuse what contradicts itself; whether logits may be seen at all is for the server to know."""
    if job.temperature and not LEAST_TEMPERATURE <= job.temperature <= MOST_TEMPERATURE:
        between = f"from {LEAST_TEMPERATURE} to {MOST_TEMPERATURE:g}"
        raise UsageError(f"cannot sample at temperature {job.temperature:g}", f"choose one {between}, or 0")
    if job.reveal and (job.temperature or not job.paced):
        raise UsageError("logits are revealed step by step, without noise", "let the client choose after each step")
    if job.beams > 1 and not (job.reveal and len(job.input.lengths) == 1):
        raise UsageError(
            "beams continue one prompt, as the client chooses from logits", "ask for logits, prompt by prompt"
        )
    if job.preprocessing and job.paced:
        raise UsageError("what is prepared runs in one go", "leave out the preprocessing, or generate a fixed number")
