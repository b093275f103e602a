"""What the owner of a model allows, as its card says it: parties refuse the rest, and clients do not ask for it.

It must not know who asks, nor over which link."""

from __future__ import annotations

from collections.abc import Sequence

from puma.errors import PolicyError, UsageError
from puma.models import heads
from puma.models.config import Config
from puma.nn.paper import SPLINE
from puma.wire import messages as msg

WORDS = {  # of each output, for people
    "hidden": "hidden states",
    "pooled": "vectors of texts",
    "logits": "class logits",
    "tokens": "likely tokens",
    msg.NEXT: "the logits of every next token",
}


def allow_approximation(card: msg.Card | None, wanted: str) -> None:
    """PolicyError unless the model's owner lets it be computed with this approximation."""
    allowed = card.approximations if card else (SPLINE,)
    if wanted not in allowed:
        what = f"the model's owner does not let it be computed with {wanted}"
        raise PolicyError(what, f"choose {' or '.join(allowed)} by --approximation, or let the owner share it again")


def usual_outputs(config: Config) -> tuple[str, ...]:
    """What the model's head is for: nothing but generated tokens, classes, masked tokens, or pooled states."""
    if heads(config).generates:
        return ()
    if heads(config).labels:
        return ("logits",)
    return ("tokens",) if heads(config).predicts else ("pooled",)


def allowed_outputs(config: Config, card: msg.Card | None, reveals: bool) -> tuple[str, ...]:
    """What a client may have of one pass. Without logits, also nothing that they can be rebuilt from."""
    if heads(config).generates and not reveals:
        return ()
    return (card.outputs if card else ()) or usual_outputs(config)


def allow_output(allowed: Sequence[str], output: str) -> None:
    """PolicyError unless this output of one pass is among those that whoever asks may have."""
    if output in msg.OUTPUTS and output not in allowed:
        may = " and ".join(WORDS.get(name, name) for name in allowed) or "generated tokens alone"
        hint = f"ask for {may}, or let its owner share it with --outputs {output.replace(' ', '-')}"
        raise PolicyError(f"the model's owner does not let clients see {WORDS[output]}", hint)


def chosen_outputs(config: Config, more: Sequence[str], reveal_logits: bool) -> tuple[str, ...]:
    """For a card: what the model's head is for, and `more`; UsageError for what there is not, or gives logits away."""
    unknown = [name for name in more if name not in msg.OUTPUTS]
    if unknown:
        names = ", ".join(name.replace(" ", "-") for name in msg.OUTPUTS)
        raise UsageError(f"there is no output {unknown[0]}", f"choose some of {names}")
    if more and heads(config).generates and not reveal_logits:
        what = f"logits can be rebuilt from {WORDS[more[0]]}, and clients may not see them"
        raise UsageError(what, "add --reveal-logits, or leave out --outputs")
    return tuple(name for name in msg.OUTPUTS if name in more or name in usual_outputs(config))
