"""The owner of a model and three parties, distant or on this machine: upload it, go on after a cut, list and delete.

Masked words and seeds leave here, and nothing else of the weights. This file must not know how links come to be, nor
where the parties keep what they get.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from puma import kernels
from puma.client.channel import PartyChannel
from puma.client.masking import masked
from puma.client.public.content import Part
from puma.client.resume import Plan, Resume, shared_before
from puma.client.turns import whole
from puma.errors import StoreError, TensorError, UsageError
from puma.models.config import Config
from puma.nn.paper import PROFILES, SPLINE
from puma.store import folders
from puma.wire import messages as msg
from puma.wire.limits import FRAME_BYTES
from puma.wire.parameters import CHECK, KEEP_MASKS_BELOW, check_values, offered_specs, open_sharing
from puma.wire.receipts import joined

Progress = Callable[[str, int, int], None]  # what, done, of


def card_of(
    name: str, version: str, files: Mapping[str, bytes], eos: Sequence[int] = (), reveal_logits: bool = False,
    max_tokens: int = 0, approximations: Sequence[str] = (SPLINE,), hides: bool = False, outputs: Sequence[str] = (),
    plan: msg.Provenance | None = None, weights: msg.OpenWeights | None = None, base: msg.Base | None = None,
) -> msg.Card:  # fmt: skip
    """What the parties and clients are told of a model; UsageError for an approximation that there is not.

    `outputs` are what clients may have of one pass, as wire/policy.chosen_outputs gives them; the head's if empty.
    `plan` says where the config's number formats come from, and `weights` what they are if everybody may know them.
    """
    unknown = [name for name in approximations if name not in PROFILES]
    if unknown or not approximations:
        what = f"there is no approximation {unknown[0]}" if unknown else "no approximation is allowed"
        raise UsageError(what, f"choose some of {', '.join(PROFILES)}")
    listed = [msg.File(label, len(data), hashlib.sha256(data).digest()) for label, data in files.items()]
    name, allowed = folders.checked_name(name), tuple(approximations)
    return msg.Card(
        name, version, list(eos), listed, reveal_logits, max_tokens, allowed, hides, tuple(outputs), plan, weights, base
    )


def listed(channel: PartyChannel) -> list[msg.Listed]:
    """What all three parties hold alike; sizes are those of all three together."""
    found = channel.ask(msg.Listing, lambda _: msg.List())
    alike: list[msg.Listed] = []
    for one in found[0].models:
        same = [m for reply in found for m in reply.models if (m.card, m.sharing) == (one.card, one.sharing)]
        if len(same) == len(found):
            told = [each.commitment for each in same if each.commitment is not None]
            size, committed = sum(each.size for each in same), joined(told)
            alike.append(msg.Listed(one.card, one.config, one.sharing, size, committed))
    return alike


class Owner:
    """What an owner does over one channel to the three parties.

    In the folder `state` lies what an interrupted upload needs to go on; `place` tells uploads to one cluster from
    those to another. Without it an upload is made in one go, under fresh seeds, and words travel without checksums: so
    it is between processes of one machine, where links lose nothing and a party's store checks what it has written.
    """

    def __init__(self, channel: PartyChannel, state: Path | None = None, place: bytes = b"") -> None:
        self._channel, self._state, self._place = channel, state, place
        self.turns = channel.turns
        self.plan: Plan | None = None  # of the upload that was made last; it holds the seeds

    @whole
    def upload(
        self, config: Config, params: Mapping[str, Tensor], card: msg.Card, files: Mapping[str, bytes] | None = None,
        alias: Mapping[str, str] | None = None, progress: Progress | None = None, plan: Plan | None = None,
    ) -> bool:  # fmt: skip
        """Share a model with the three parties, tensor by tensor; True if an interrupted upload was gone on with.

        `plan` is that of an upload which is made again; else there is a new one, or one is taken up. `self.plan` is
        what was done.
        A parameter in `alias` is not sent: it is the same secret as another, under the same masks. The parties serve
        the model once all of them hold all of it. StoreError if one has no room, AdmissionError if another owner has a
        model of this name.
        """
        alias = alias or {}
        specs = [spec for spec in offered_specs(config) if spec.name not in alias]
        resume = self._resumed(plan or Plan.fresh(card, config, specs, alias), params)
        held = self._offer(resume.plan)
        self._send_files([reply.published for reply in held], files or {})
        first = min(reply.tensors for reply in held)
        for i, spec in enumerate(specs[first:], first):
            self._send(
                check_values() if spec == CHECK else params[spec.name],
                spec,
                [reply.tensors <= i for reply in held],
                resume,
            )
            if progress:
                progress("sharing the model", i + 1, len(specs))
        if progress and self._state:
            progress("the parties check what they hold", 0, 1)
        for reply in self._channel.answers(msg.Held):
            if reply.tensors != len(specs):
                raise StoreError("a party has lost a part of what was sent", "run the command again")
        self._channel.ask(msg.Report, lambda _: msg.Publish())
        resume.done()
        self.plan = resume.plan
        return resume.resumed

    @whole
    def open_up(
        self, config: Config, parts: Sequence[Part], card: msg.Card, files: Mapping[str, bytes] | None = None,
        alias: Mapping[str, str] | None = None, places: Sequence[msg.Place] = (), progress: Progress | None = None,
        sharing: bytes = b"",
    ) -> bool:  # fmt: skip
        """Have the three parties serve a model whose weights everybody may know; True if they served these already.

        The evaluators get the numbers as they are, or look for them at `places` of their machine, one for each part;
        the dealer gets none. What has arrived of these very weights is not sent again. Each party compares what arrives
        with the digests of `parts`, of which the card's is made; from `places` it compares nothing, and `sharing` is
        what the model is called by. Errors as of `upload`.
        """
        sharing = sharing or open_sharing(card)
        offer = msg.Offer(
            card, config, [part.spec for part in parts], [], False, sharing, alias=dict(alias or {}),
            checksums=self._state is not None, places=list(places),
        )  # fmt: skip
        held = self._channel.ask(msg.Held, lambda _: offer)
        self._send_files([reply.published for reply in held], files or {})
        for i, part in enumerate(parts):
            self._send_open(part, [reply.tensors <= i for reply in held])
            if progress:
                progress("sending the weights", i + 1, len(parts))
        if any(reply.tensors != len(parts) for reply in self._channel.answers(msg.Held)):
            raise StoreError("a party has lost a part of what was sent", "run the command again")
        self._channel.ask(msg.Report, lambda _: msg.Publish())
        return all(reply.published for reply in held)

    def _send_open(self, part: Part, lacking: Sequence[bool]) -> None:
        """The numbers of one tensor, and their checksum, to whoever lacks them."""
        if not any(lacking):
            return
        with self._channel.sending() as links:
            wanting = [link for link, lacks in zip(links, lacking, strict=True) if lacks]
            for frame in part.frames():
                for link in wanting:
                    link.send(frame)
            for link in wanting if self._state else []:
                link.send_control(msg.encode(msg.Checksum(part.spec.sha256)))

    @whole
    def unchanged(self, config: Config, params: Mapping[str, Tensor], card: msg.Card) -> bool:
        """Whether the parties serve these very parameters under this card already, as an upload with this state left
        them. `card.hides` follows from them and is not compared.
        """
        if self._state is None:
            return False
        same = [
            one.sharing
            for one in listed(self._channel)
            if one.config == config and msgspec.structs.replace(one.card, hides=card.hides) == card
        ]
        return bool(same) and shared_before(self._resume_file(self._state, card), params) in same

    @whole
    def delete(self, name: str) -> None:
        """Let all parties forget a model, and what has arrived of one; AdmissionError if it is another owner's."""
        self._channel.ask(msg.Report, lambda _: msg.Delete(name))

    @whole
    def models(self) -> list[msg.Listed]:
        """What all three parties hold alike; sizes are those of all three together."""
        return listed(self._channel)

    def _resumed(self, plan: Plan, params: Mapping[str, Tensor]) -> Resume:
        """What an earlier attempt at this upload has begun, or a beginning."""
        if self._state is None:
            return Resume(None, plan, params)
        return Resume(self._resume_file(self._state, plan.card), plan, params)

    def _resume_file(self, state: Path, card: msg.Card) -> Path:
        place = hashlib.sha256(self._place + card.name.encode()).hexdigest()[:16]
        return state / f"{card.name}-{place}"

    def _offer(self, plan: Plan) -> list[msg.Held]:
        """Say what is to come; how much of it each party has."""
        keep_masks = sum(torch.Size(s.shape).numel() for s in plan.tensors) < KEEP_MASKS_BELOW
        checksums = self._state is not None

        def offer(seeds: list[bytes]) -> msg.Offer:
            given = plan.card, plan.config, plan.tensors, seeds, keep_masks, plan.sharing
            salt = plan.salt if len(seeds) == 1 else b""  # not to the dealer, who knows all masks
            return msg.Offer(*given, alias=plan.alias, checksums=checksums, salt=salt)

        return self._channel.ask(msg.Held, offer, plan.seeds)

    def _send_files(self, published: Sequence[bool], files: Mapping[str, bytes]) -> None:
        with self._channel.sending() as links:
            for link in [link for link, done in zip(links, published, strict=True) if not done]:
                for content in map(memoryview, files.values()):
                    for at in range(0, len(content), FRAME_BYTES):
                        link.send(content[at : at + FRAME_BYTES])

    def _send(self, tensor: Tensor, spec: msg.TensorSpec, lacking: Sequence[bool], resume: Resume) -> None:
        """One parameter, masked, and its checksum, to whoever lacks it."""
        if tuple(tensor.shape) != tuple(spec.shape):
            raise TensorError(f"parameter {spec.name} is misshapen", "fold the checkpoint first")
        resume.begin(spec.name, tensor)
        digest = hashlib.sha256()
        with self._channel.sending() as links:
            wanting: list[Any] = [link for link, lacks in zip(links, lacking, strict=True) if lacks]
            for frame in masked(tensor, spec, resume.plan.seeds, f"weight {spec.name}"):
                sent = kernels.to_wire(frame)
                if self._state:
                    digest.update(sent)
                for link in wanting:
                    link.send(sent)
            for link in wanting if self._state else []:
                link.send_control(msg.encode(msg.Checksum(digest.digest())))
