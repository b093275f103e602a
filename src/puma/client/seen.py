"""What a client has seen of a model before: digests of all that decides how its words become tokens, and how many.

A tokenizer or a chat template can say something about a prompt by the number of tokens that it makes, which the parties
learn. So the first ones seen count from then on, and a change is an error until the client accepts it. The record is a
private file of the client's. This file must not know links, nor what is in a tokenizer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from puma.errors import StoreError, UsageError
from puma.models.config import Config
from puma.store import folders
from puma.store.folders import explained
from puma.wire import messages as msg

Found = Literal["new", "same", "changed"]
Own = Collection[str]
ALL = frozenset({"*"})
CONFIG = "config"  # with the tokens that end a text; files are known by their names
WEIGHTS = "weights"  # the commitment to their shares

_decoder = msgspec.json.Decoder(dict[str, dict[str, str]])


def state_file() -> Path:
    """Where it is written down what has been seen, unless told otherwise."""
    return folders.of_user("XDG_STATE_HOME", ".local", "state") / "puma" / "client" / "seen.json"


def digests(config: Config, card: msg.Card, commitment: bytes = b"") -> dict[str, str]:
    """SHA-256 of config and files, and the commitment to the weights where there is one."""
    decisive = msgspec.json.encode([config, card.eos])
    files = {file.name: file.sha256.hex() for file in card.files}
    weights = {WEIGHTS: commitment.hex()} if commitment else {}
    return {CONFIG: hashlib.sha256(decisive).hexdigest()} | weights | files


def check(path: Path, model: str, found: Mapping[str, str], accept: bool = False, own: Own = frozenset()) -> Found:
    """Compare with what was seen of this model, and write it down if it is new or accepted.

    `model` names it among all clusters'. What the client brings as its `own`, files of these names or all of them, is
    not looked at. UsageError for a change that was not accepted, StoreError for a record that
    cannot be read or written.
    """
    folders.private_folder(path.parent)
    known = _read(path)
    before = known.get(model)
    mine = {name for name in {*(before or {}), *found} if name not in (CONFIG, WEIGHTS) and (own == ALL or name in own)}
    found = {name: digest for name, digest in found.items() if name not in mine}
    kept = {name: digest for name, digest in (before or {}).items() if name in mine}
    if before == found | kept:
        return "same"
    first = before is not None and before == {name: of for name, of in (found | kept).items() if name != WEIGHTS}
    if before is not None and not (accept or first):  # what was first seen before there were commitments is the same
        raise _changed(sorted(name for name in {*before, *found} - mine if before.get(name) != found.get(name)))
    with explained(f"the record {path}"):
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        folders.write_new(fresh, msgspec.json.format(msgspec.json.encode(known | {model: found | kept}), indent=2))
        fresh.replace(path)
    return "new" if before is None else "same" if first else "changed"


def _changed(names: list[str]) -> UsageError:
    """What has changed since, and why that matters."""
    if names == [WEIGHTS]:
        return UsageError(
            "since you last used this model, its weights were shared anew: another model may answer under its name",
            "compare the commitment in `puma models show` with what its owner says, then pass --accept-changes, or "
            "accept_changes=True",
        )
    return UsageError(
        f"since you last used this model, its {' and '.join(names)} changed: the parties learn how many tokens a "
        "prompt becomes, and with other files that can say more than before",
        "ask the model's owner, then pass --accept-changes, or accept_changes=True; or bring your own --tokenizer",
    )


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        hint = "look at it; without it, all models count as new"
        raise StoreError(f"{path} cannot be read ({error})", hint) from error
