"""Canaries with three servers in threads, of which one deviates in a way of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from puma import kernels
from puma.audit.auditing import Auditor
from puma.audit.here import shared_by
from puma.audit.report import Report
from puma.client.session import Session
from puma.crypto.prg import PairKey
from puma.crypto.signing import Signer
from puma.local.cluster import LocalCluster
from puma.mpc.party import FIRST, Message, Piece
from puma.net.frame import Kind
from puma.party.server import Server
from tests.threads import Threads

Deviate = Callable[[Server], None]
Change = Callable[[Tensor, list[Tensor]], Tensor]  # of a message, and those that were sent before


def canary(rank: int = 0, deviate: Deviate | None = None, ask: Callable[[Session], Any] = Session.selftest) -> Report:
    """The report on a canary that asks a self-test, in which every kind of message crosses every link."""
    with closing(Threads()) as trio:
        if deviate is not None:
            deviate(trio.servers[rank])
        return Auditor(Signer.fresh()).audit(trio.session, None, ask)


def canary_of(
    model: Any, ask: Callable[[Session], Any], rank: int = 0, deviate: Deviate | None = None, dealers: int = 1,
    approximation: str = "spline", **how: Any,
) -> Report:  # fmt: skip
    """The same of a model, which the three hold before."""
    with closing(Threads(dealers=dealers, approximation=approximation)) as trio:
        cluster = LocalCluster(model, trio=trio, **how)  # type: ignore[arg-type]
        if deviate is not None:
            deviate(trio.servers[rank])
        return Auditor(Signer.fresh(), shared=shared_by(cluster)).audit(trio.session, None, ask)


# -- what may be done to a message ------------------------------------------------------------------------------------


def low_bit(message: Tensor, before: list[Tensor]) -> Tensor:
    message.reshape(-1)[0] ^= 1
    return message


def last_bit(message: Tensor, before: list[Tensor]) -> Tensor:
    message.reshape(-1)[-1] ^= 1
    return message


def shifted(message: Tensor, before: list[Tensor]) -> Tensor:
    """By a number of one's choosing, all of it."""
    return message ^ 1 if message.dtype == torch.uint8 or int(message.max()) <= 1 else message + 5


def zeros(message: Tensor, before: list[Tensor]) -> Tensor:
    return torch.zeros_like(message)


def repeated(message: Tensor, before: list[Tensor]) -> Tensor:
    """What was sent before, cut or repeated to this size; the same backwards where nothing was."""
    old = before[-1].reshape(-1) if before else message.reshape(-1).flip(0)
    count = -(-message.numel() // old.numel())
    return old.repeat(count)[: message.numel()].reshape(message.shape).to(message.dtype)


CHANGES: dict[str, Change] = {
    "low bit": low_bit, "last bit": last_bit, "shifted": shifted, "zeros": zeros, "repeated": repeated,
}  # fmt: skip


def other(change: Change, honest: Tensor, before: list[Tensor], bits: int) -> Tensor:
    """The message after a change, which may by chance have left it as it was: then its lowest bit is another."""
    changed = change(honest.clone().contiguous(), before)
    same = torch.equal(kernels.reduce(changed.long(), bits), kernels.reduce(honest.long().contiguous(), bits))
    return low_bit(changed, before) if same else changed


def corrects(number: int, change: Change) -> Deviate:
    """The dealer sends another correction."""

    def deviate(server: Server) -> None:
        party, honest, sent = server.party, server.party.correction, list[Tensor]()

        def correction(payload: Tensor | None, count: int) -> Tensor | None:
            if payload is not None:
                wrong = other(change, payload, [*sent], 8) if len(sent) == number else payload
                sent.append(payload.clone())
                payload = wrong
            return honest(payload, count)

        party.correction = correction  # type: ignore[method-assign]

    return deviate


def swaps(number: int, change: Change) -> Deviate:
    """An evaluator sends another piece of a message to the other one."""

    def deviate(server: Server) -> None:
        party, honest, sent = server.party, server.party.exchange, list[Tensor]()

        def exchange(pieces: Message) -> list[Tensor | None]:
            changed = list[Piece]()
            for piece in pieces:
                assert piece.words is not None
                words = other(change, piece.words, [*sent], piece.bits) if len(sent) == number else piece.words
                sent.append(piece.words.clone())
                changed.append(piece._replace(words=words))
            return honest(changed)

        party.exchange = exchange  # type: ignore[method-assign]

    return deviate


def swaps_where(which: Callable[[Piece], bool], number: int, change: Change) -> Deviate:
    """An evaluator sends another piece to the other one: the `number`th of those that are wanted."""

    def deviate(server: Server) -> None:
        party, honest, count = server.party, server.party.exchange, [0]

        def exchange(pieces: Message) -> list[Tensor | None]:
            changed = list[Piece]()
            for piece in pieces:
                assert piece.words is not None
                wanted = which(piece)
                wrong = wanted and count[0] == number
                count[0] += wanted
                words = other(change, piece.words, [], piece.bits) if wrong else piece.words
                changed.append(piece._replace(words=words))
            return honest(changed)

        party.exchange = exchange  # type: ignore[method-assign]

    return deviate


def forges(peer: int, number: int) -> Deviate:
    """A party sends another frame than the one that it hashes and says it has sent."""

    def deviate(server: Server) -> None:
        link: Any = server.party.links[peer]
        honest, sent = link._transmit, [0]

        def transmit(kind: Kind, sequence: int, pieces: Iterable[memoryview], size: int) -> None:
            if kind is Kind.DATA:
                sent[0] += 1
                if sent[0] == number + 1:
                    first, *rest = [*pieces]
                    pieces = [memoryview(bytes([first[0] ^ 1]) + bytes(first[1:])), *rest]
            honest(kind, sequence, pieces, size)

        link._transmit = transmit

    return deviate


def drops_a_pad(purpose: str, number: int) -> Deviate:
    """What a party draws to pad a message, or a half of what it deals, is zeros."""

    def deviate(server: Server) -> None:
        party, drawn = server.party, [0]

        def dropping(draw: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
            def drawing(evaluator: int, what: str, size: Any) -> Tensor | None:
                found = draw(evaluator, what, size)
                if what == purpose and found is not None and evaluator == (party.rank or FIRST):
                    drawn[0] += 1
                    return torch.zeros_like(found) if drawn[0] == number + 1 else found
                return found

            return drawing

        party.words = dropping(party.words)  # type: ignore[method-assign, assignment]
        party.random_bytes = dropping(party.random_bytes)  # type: ignore[method-assign, assignment]

    return deviate


def other_secret(peer: int) -> Deviate:
    """A party draws from another stream than the one that it has in common with its peer."""

    def deviate(server: Server) -> None:
        server.party._keys[peer] = PairKey(b"another secret of 32 bytes......")

    return deviate


def answers(component: int, byte: int) -> Deviate:
    """A party gives the client another component of an answer."""

    def deviate(server: Server) -> None:
        honest = server.client.send

        def send(*buffers: Any) -> None:
            parts = [bytearray(buffer) for buffer in buffers]
            parts[component][byte] ^= 1
            honest(*parts)

        server.client.send = send

    return deviate


def parameter(number: int, component: int) -> Deviate:
    """A party computes with another model: one parameter is not the one that was shared."""

    def deviate(server: Server) -> None:
        assert server.engine is not None
        share: Any = server.engine.params[number]
        words = list(share.components)
        words[component] = words[component] + (1 << 14)
        share._kept[:] = [tuple(words)]

    return deviate


def input_of(server: Server) -> None:
    """A party takes another input than the one that its client shared."""
    honest: Any = server._prompt

    def prompt(*given: Any) -> Any:
        found = honest(*given)
        bits = found.bits[0].clone()
        bits[0, 0] ^= 2
        found.bits = (bits, found.bits[1])
        return found

    server._prompt = prompt  # type: ignore[method-assign]
