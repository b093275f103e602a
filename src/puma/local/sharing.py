"""Giving a model to three parties on this machine, by whoever started them and will ask them: in shares, or, where
everybody may know the weights, by saying in which files they lie.

It must not know processes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec.structs import replace
from torch import Tensor

from puma.client.owner import Owner, Progress, card_of
from puma.client.public.content import Part, digested, matrix_of, named, parts, placed, weights_of
from puma.client.public.table import PublicTable
from puma.client.resume import Plan
from puma.client.session import Session
from puma.errors import ProtocolError
from puma.local.inventory import OPEN
from puma.models import in_the_open
from puma.models.config import Config
from puma.models.unfolded.apart import apart, base_of
from puma.nn.paper import PROFILES
from puma.reference.plain_model import PlainModel
from puma.store import folders
from puma.store.models import content_label, content_name, owner_key
from puma.wire.messages import Base, Provenance
from puma.wire.parameters import SHARING_BYTES, open_sharing


def share(
    session: Session, config: Config, params: Mapping[str, Tensor], progress: Progress | None = None,
    alias: Mapping[str, str] | None = None, name: str = "model", reveal_logits: bool = False,
    plan: Provenance | None = None,
) -> Plan:  # fmt: skip
    """Be the owner of a model towards three parties on this machine, and then its client; what was shared, with seeds.

    Who owns the parties may have the model computed with all functions that there are.
    """
    card = card_of(name, "", {}, reveal_logits=reveal_logits, approximations=[*PROFILES], plan=plan)
    owner = Owner(session)
    owner.upload(config, params, card, alias=alias, progress=progress)
    if not session.open(name) or owner.plan is None:
        raise ProtocolError(f"the parties do not hold one model {name}", "start others")
    return owner.plan


def open_up(
    session: Session, config: Config, parts: Sequence[Part], store: Path | None, progress: Progress | None = None,
    alias: Mapping[str, str] | None = None, name: str = "model", reveal_logits: bool = False,
    plan: Provenance | None = None,
) -> None:  # fmt: skip
    """The same with weights that everybody may know: parties on this machine find them where they lie."""
    weights = weights_of(config, parts, alias)
    card = card_of(
        name, "", {}, reveal_logits=reveal_logits, approximations=[*PROFILES], plan=plan, weights=weights
    )  # fmt: skip
    with ExitStack() as stack:
        if store is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="puma-", dir=folders.MEMORY_FOLDER)))
        else:
            folder = folders.private_folder(store / OPEN / name)
        where = placed(parts, folder)
        sharing = open_sharing(card) if store else os.urandom(SHARING_BYTES)
        Owner(session).open_up(config, parts, card, alias=alias, places=where, progress=progress, sharing=sharing)
    if not session.open(name):
        raise ProtocolError(f"the parties do not hold one model {name}", "start others")
    look_up(session, config, parts, alias)


def share_adapter(
    session: Session, config: Config, params: Mapping[str, Tensor], base: str, progress: Progress | None = None,
    name: str = "model", reveal_logits: bool = False, plan: Provenance | None = None,
) -> Plan:  # fmt: skip
    """Share a secret adapter of an open model that the parties have under the name `base`, and open what both make
    together; the session's table stays the base's. What was shared, with seeds."""
    if not session.open(base):
        raise ProtocolError(f"the parties do not hold one model {base}", "open it first")
    assert session.card is not None
    over = Base(base, session.sharing)
    card = card_of(
        name, "", {}, reveal_logits=reveal_logits, approximations=[*PROFILES], plan=plan,
        weights=session.card.weights, base=over,
    )  # fmt: skip
    owner = Owner(session)
    owner.upload(config, params, card, progress=progress)
    if not session.open(name) or owner.plan is None:
        raise ProtocolError(f"the parties do not hold one model {name}", "start others")
    return owner.plan


def serve_open(
    trio: Any, config: Config, params: Mapping[str, Tensor], called: str, progress: Progress | None = None,
    reveal_logits: bool = False, plan: Provenance | None = None, prefix: str = "",
) -> str:  # fmt: skip
    """Have a local trio serve a model whose weights everybody may know, unless its store has it as it lies now; what it
    is called there."""
    config, session = in_the_open(config), trio.session
    found, name = parts(config, params), f"{prefix}model"
    if trio.store:
        found = digested(found, progress or _silent)
        name = stored(trio, f"{prefix}{content_label(called)}-{named(config, found)}")
    if trio.store and session.open(name) and session.reveals == reveal_logits:
        look_up(session, config, found)
    else:
        trio.open_up(config, found, progress, None, name, reveal_logits, plan)
    return name


def serve_adapted(
    trio: Any, merged: PlainModel, progress: Progress | None = None, reveal_logits: bool = False,
    plan: Provenance | None = None,
) -> tuple[str, Plan | None]:  # fmt: skip
    """The same with an adapter that stays secret: `merged` is what base and adapter make together, whose number formats
    both have. Also what was shared, if anything had to be. UnsupportedModel where nothing can stand beside the base's
    matrices."""
    source, adapter = merged.made_of
    assert adapter is not None
    base, formats = base_of(merged.config, source), merged.config.formats
    ranks, tensors = apart(base, adapter)
    under = serve_open(
        trio, replace(base.config, formats=formats), base.fold(), base.name, progress, reveal_logits, plan, "base-"
    )
    config = in_the_open(replace(base.config, formats=replace(formats, adapted=ranks)))
    session, name, made = trio.session, "model", None
    if trio.store:
        name = stored(trio, content_name(owner_key(trio.store / "owner"), merged.name, config, tensors))
    if not (trio.store and session.open(name) and session.reveals == reveal_logits):
        made = share_adapter(session, config, tensors, under, progress, name, reveal_logits, plan)
    return name, made


def stored(trio: Any, name: str) -> str:
    """What a model of this name is called in the store of these parties: of four, who hold it otherwise than three."""
    return f"{name}-2" if getattr(trio, "dealers", 1) > 1 else name


def _silent(what: str, done: int, of: int) -> None:
    """No progress wanted."""


def look_up(session: Session, config: Config, parts: Sequence[Part], alias: Mapping[str, str] | None = None) -> None:
    """Let the session's client find its tokens' rows in the table that lies here."""
    matrix = matrix_of(config, parts, alias)
    session.table = PublicTable(matrix) if matrix else None
