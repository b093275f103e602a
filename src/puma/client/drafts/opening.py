"""What makes drafts, by what a user says: lookup, or a model of the same tokenizer on this machine.

It must not know who is asked, nor when drafts are worth it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from puma.client.drafts.draft import Source
from puma.client.drafts.lookup import Lookup
from puma.client.drafts.model import open_model
from puma.client.model_info import ModelInfo
from puma.errors import UsageError
from puma.models import architecture

LOOKUP = "lookup"
__all__ = ["Source", "opened", "refused"]
WAYS = "pass lookup, or the folder of a small model with the same tokenizer"


def refused(draft: Any) -> None:
    """UsageError for drafts of a beam search."""
    if draft is not None:
        raise UsageError("a beam search goes on with several texts, and takes no drafts", "leave out one of both")


def opened(draft: Any, model: ModelInfo) -> Source | None:
    """The source of drafts for a model, or None for none; a model on this machine is read once.

    UsageError for what makes none, for a model of another tokenizer, and for one whose texts cannot be cut.
    """
    if draft is None:
        return None
    model.check_generates()
    if not architecture(model.config).cuts(model.config):
        raise UsageError(f"{model.name} has a memory of constant size, which takes no drafts back", "leave out drafts")
    if hasattr(draft, "begin"):
        return draft
    if not isinstance(draft, str | Path) or not str(draft):
        what = repr(draft) if isinstance(draft, str) else f"something of type {type(draft).__name__}"
        raise UsageError(f"drafts cannot come from {what}", WAYS)
    if draft == LOOKUP:
        return Lookup()
    if str(draft) not in model.drafting:
        model.drafting[str(draft)] = open_model(draft, model.config, model.tokenizer)
    return model.drafting[str(draft)]
