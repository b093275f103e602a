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

from torch import Tensor

from puma.client.owner import Owner, Progress, card_of
from puma.client.public.content import Part, matrix_of, placed, weights_of
from puma.client.public.table import PublicTable
from puma.client.resume import Plan
from puma.client.session import Session
from puma.errors import ProtocolError
from puma.local.inventory import OPEN
from puma.models.config import Config
from puma.nn.paper import PROFILES
from puma.store import folders
from puma.wire.messages import Provenance
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


def look_up(session: Session, config: Config, parts: Sequence[Part], alias: Mapping[str, str] | None = None) -> None:
    """Let the session's client find its tokens' rows in the table that lies here."""
    matrix = matrix_of(config, parts, alias)
    session.table = PublicTable(matrix) if matrix else None
