"""`puma share`: upload a model's shares to three distant parties."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from puma.cli import ui
from puma.cli.options import FITTED, HUMAN, ClusterFile, Count, Fitting, Flag, Key, Output
from puma.cli.where import owner
from puma.errors import UsageError

if TYPE_CHECKING:
    from puma.client.owner import Owner
    from puma.reference.plain_model import PlainModel
    from puma.wire.messages import Card


def share(
    model: str,
    /,
    *,
    key: Key,
    adapter: str | None = None,
    cluster: Path = ClusterFile,
    name: str | None = None,
    version: str = "1",
    reveal_logits: Flag = False,
    max_tokens: Count = 0,
    approximations: str = "spline",
    outputs: str = "",
    state: Path | None = None,
    keep: Path | None = None,
    preamble: Path | None = None,
    insecure: Flag = False,
    open_weights: Flag = False,
    fitting: Fitting = FITTED,
    output: Output = HUMAN,
) -> None:
    """Upload a model's shares to the three parties; an upload that was cut off goes on where it was.

    Parameters
    ----------
    model
        A checkpoint's folder, a GGUF file, a hub name, or stories, the embedded model.
    adapter
        A LoRA adapter to merge into it: a folder as peft writes it, or a name on the hub.
    key
        The owner's key.
    cluster
        The cluster file; cluster.toml unless given.
    name
        What clients call the model; the folder's name unless given. A model of that name is replaced.
    version
        What is shown beside the name.
    reveal_logits
        Let clients see logits, to sample from them.
    max_tokens
        Tokens of a request, prompt and answer together; the cluster's limit unless given.
    approximations
        Which functions clients may have it computed with, with commas between: of spline, puma, mpcformer.
    outputs
        What else clients may have of one pass, besides what the model's head is for, with commas between: of hidden,
        pooled, logits, tokens, next-logits.
    state
        The folder for what an interrupted upload needs to go on, which is as secret as the weights.
    keep
        Write the seeds of the masks to this file, for `puma audit`; it is as secret as the weights.
    preamble
        A file with a system message, in UTF-8: chats that begin with it pay for the rest of their prompts alone,
        whoever asks. Everybody learns the message, and whether a chat begins with it.
    insecure
        Links without TLS, to parties that were started likewise on this machine.
    open_weights
        The weights are no secret: the evaluators get them as they are, two bytes a number where the files have as many,
        and only what clients ask is hidden. Every party compares them with the same digests, and the card says so.
    """
    from puma.audit.shared import write
    from puma.client.owner import Owner, card_of
    from puma.client.resume import state_folder
    from puma.reference.plain_model import PlainModel
    from puma.wire.policy import chosen_outputs

    if keep is not None and keep.exists():
        raise UsageError(f"{keep} exists", "name a new file: one with seeds is never written over")
    started = time.perf_counter()
    with ui.progress(output.json) as progress:
        clear = PlainModel(model, adapter)
        ui.left_aside(clear.checkpoint.beyond)
        ui.assumed(clear.config)
        if preamble is not None:
            _begin(clear, preamble, adapter is not None and open_weights, keep)
        files = {label: read() for label, read in clear.files.items()}
        called, allowed = name or _name(clear.name), _listed(approximations)
        seen = chosen_outputs(clear.config, [each.replace("-", " ") for each in _listed(outputs)], reveal_logits)
        card = card_of(called, version, files, clear.eos, reveal_logits, max_tokens, allowed, outputs=seen)
        card = msgspec.structs.replace(card, plan=clear.plan(fitting.settings(*allowed), progress).provenance)
        session = owner(cluster, key, insecure, progress)
        try:
            owning = Owner(session, state or state_folder(), session.cluster.digest)
            if keep is not None:
                _check_keeping(owning, clear, card, open_weights, adapter is not None)
            give = _opened if open_weights else _shared
            card, resumed, same = give(owning, clear, card, files, progress)
            if keep is not None:
                if owning.plan is None:
                    raise _unkept(card)
                write(keep, owning.plan)
            committed, digest = _digests(owning, card.name)
        finally:
            session.close()
    seconds = time.perf_counter() - started
    if output.json:
        told = {
            "name": card.name,
            "version": card.version,
            "resumed": resumed,
            "unchanged": same,
            "commitment": committed,
            "card": digest,
        }
        ui.answer(told | {"seconds": seconds})
        return
    if same:
        ui.say(f"{card.name} (version {card.version}): unchanged, nothing was sent; {seconds:.1f} s")
        return
    how = "the rest of it was sent" if resumed else "shared"
    ui.say(f"{card.name} (version {card.version}): {how} in {seconds:.1f} s; all three parties serve it now")
    named = f"commitment {committed}" if committed else f"card {digest}"
    ui.say(f"{named}: clients see by it that it is this one (puma models show)")


def _begin(clear: PlainModel, path: Path, apart: bool, keep: Path | None) -> None:
    """Compute what prompts may begin with."""
    if keep is not None:
        what = "whoever audits a model computes its weights anew, but not a preamble to the last bit"
        raise UsageError(what, "leave out --keep or --preamble")
    if apart:
        raise UsageError("an adapter that is shared apart has no preamble", "leave out --open-weights or --preamble")
    try:
        message = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "pass a text file") from None
    clear.begin_with(message)


def _check_keeping(owning: Owner, clear: PlainModel, card: Card, open_weights: bool, adapted: bool) -> None:
    """UsageError where there are no seeds to be kept; an adapter has some, whatever it is shared over."""
    if open_weights and not adapted:
        what = "open weights have no masks, and so no seeds to keep: clients audit them without"
        raise UsageError(what, "leave out --keep or --open-weights")
    if not open_weights and owning.unchanged(clear.config, clear.params, card):
        raise _unkept(card)


def _unkept(card: Card) -> UsageError:
    what = f"{card.name} is unchanged, and the seeds of its masks are kept nowhere"
    return UsageError(what, "share it under another --version, and all of it is sent anew")


def _digests(owning: Owner, name: str) -> tuple[str, str]:
    """What the parties commit to of a model, empty of open weights, and the digest of its card, which names these; in
    hex, empty where they do not agree."""
    from puma.wire.receipts import card_digest, commitment_digest

    found = next((each for each in owning.models() if each.card.name == name), None)
    if found is None:
        return "", ""
    committed = commitment_digest(found.commitment).hex() if found.commitment else ""
    return committed, card_digest(found.config, found.card).hex()


def _shared(
    owning: Owner, clear: PlainModel, card: Card, files: dict[str, bytes], progress: ui.Progress
) -> tuple[Card, bool, bool]:
    """Upload shares; the card, whether an upload was gone on with, and whether nothing had to be sent."""
    from puma.models.ranges import hides

    progress("comparing with what was shared", 0, 1)
    if owning.unchanged(clear.config, clear.params, card):
        return card, False, True
    progress("checking the weights", 0, 1)
    card = msgspec.structs.replace(card, hides=hides(clear.config, clear.params))
    return card, owning.upload(clear.config, clear.params, card, files, progress=progress), False


def _opened(
    owning: Owner, clear: PlainModel, card: Card, files: dict[str, bytes], progress: ui.Progress
) -> tuple[Card, bool, bool]:
    """The same with weights that everybody may know; an adapter stays secret, over a base that is served."""
    from puma.client.public.content import digested, parts, weights_of
    from puma.models import in_the_open
    from puma.models.ranges import hides

    if clear.made_of[1] is not None:
        return _adapted(owning, clear, card, files, progress)
    config = in_the_open(clear.config)
    found = digested(parts(config, clear.params), progress)
    weights = weights_of(config, found)
    card = msgspec.structs.replace(card, hides=hides(clear.config, clear.params), weights=weights)
    return card, False, owning.open_up(config, found, card, files, progress=progress)


def _adapted(
    owning: Owner, clear: PlainModel, card: Card, files: dict[str, bytes], progress: ui.Progress
) -> tuple[Card, bool, bool]:
    """Share an adapter alone."""
    from puma.client.public.content import base_among
    from puma.models import in_the_open
    from puma.models.ranges import hides
    from puma.models.unfolded.apart import apart, base_of
    from puma.wire.messages import Base

    base, formats = base_of(clear.config, clear.made_of[0]), clear.config.formats
    ranks, tensors = apart(base, clear.made_of[1] or "")
    under = base_among(owning.models(), in_the_open(base.config), base.fold(), progress)
    over = Base(under.card.name, under.sharing)
    config = msgspec.structs.replace(base.config, formats=msgspec.structs.replace(formats, open=True, adapted=ranks))
    card = msgspec.structs.replace(card, weights=under.card.weights, base=over)
    if owning.unchanged(config, tensors, card):
        return card, False, True
    card = msgspec.structs.replace(card, hides=hides(clear.config, clear.params))
    return card, owning.upload(config, tensors, card, files, progress=progress), False


def _listed(words: str) -> Sequence[str]:
    """The words of an option that takes several, with commas between."""
    return [word.strip() for word in words.split(",") if word.strip()]


def _name(source: str) -> str:
    """A name for a model out of a folder's or the hub's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).name).strip("-._") or "model"
