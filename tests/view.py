"""All that a party holds, draws and hears in many copies of one run, as bits, and whether that tells a secret.

Each copy has a secret bit of its own, which chooses between two inputs. A protocol hides it if no view bit, no pair of
them, no word's difference from another tells the bit better than chance does, and if no xor of view bits whatsoever
equals it (linear algebra over GF(2)). The keys and secrets are fixed, so a result is always the same.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from puma import kernels
from puma.kernels.rounds.message import ALONE, SUM
from puma.mpc import boolean, lookup
from puma.mpc.boolean import MaskedBit
from puma.mpc.party import DEALER, SECOND, Message, Party, Piece
from puma.mpc.retrieval import Choice
from puma.mpc.share import Additive, Bits, Share
from tests.cases import coins
from tests.trio import parties, trio

CHANCE = 1e-6  # that a protocol which hides everything is suspected, by Hoeffding's bound
MORE = 80  # copies beyond the number of view bits: a stray xor equals the secret in all of them with chance 2^-80
_here = threading.local()  # the viewer that runs in this thread, and the shape of the bits that it is about to send

Run = Callable[["Viewer", Tensor], Any]  # of a party and the secret bits (copies,)


class Seen(NamedTuple):
    """Part of a view: what it is, its bits (copies, k), and the words (copies, n) that they are of, if they are."""

    name: str
    bits: np.ndarray
    words: np.ndarray | None
    ring: int


class Shaped(Piece):
    """A piece of packed bits that knows the shape of the bits."""

    shape: tuple[int, ...] = ()


class Viewer(Party):
    """A party that writes down its view; of words that it draws, as many bits as the largest ring has."""

    copies, ring = 0, 64

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.view: list[Seen] = []
        self.heard = 0  # pieces
        self._padded: tuple[str, tuple[int, ...]] = "", ()

    def hold(self, secret: Any) -> Any:
        """An input; it is part of the view."""
        if isinstance(secret, Share):
            for words in secret.components:
                self._words("input", words, secret.bits)
        elif isinstance(secret, Choice):
            for bits in secret.bits:
                self._bits("input", np.unpackbits(bits.numpy(), axis=-1, bitorder="little"))
            self.hold(secret.signs)
        elif isinstance(secret, Additive | Bits) and not self.is_dealer:
            self._words("input", secret.part, getattr(secret, "bits", 1))
        elif isinstance(secret, MaskedBit):
            self._words("input", secret.word, 1)
        return secret

    # -- what is drawn --------------------------------------------------------------------------------------

    def words(self, evaluator: int, purpose: str, shape: Sequence[int]) -> Tensor | None:
        self._padded = purpose, tuple(shape)
        drawn = super().words(evaluator, purpose, shape)
        if drawn is not None:
            self._words(purpose, drawn, self.ring)
        return drawn

    def common_words(self, purpose: str, shape: Sequence[int]) -> Tensor:
        drawn = super().common_words(purpose, shape)
        if not self.is_dealer:
            self._words(purpose, drawn, self.ring)
        return drawn

    def random_bytes(self, evaluator: int, purpose: str, count: int) -> Tensor | None:
        assert purpose in ("bit", "bit-deal", "one-hot"), f"say how the bytes of {purpose} are to be seen"
        self._padded, _here.viewer = (purpose, ()), self
        return super().random_bytes(evaluator, purpose, count)

    # -- what is heard --------------------------------------------------------------------------------------

    def correction(self, payload: Tensor | None, count: int) -> Tensor | None:
        received = super().correction(payload, count)
        purpose, shape = self._padded
        if self.rank == SECOND and received is not None and count:
            self.heard += 1
            if purpose in ("deal", "coarse"):
                bits = 8 * count // math.prod(shape)
                self._words("dealt", kernels.unpack(received.clone(), bits, shape), bits)
            else:
                assert purpose in ("bit-deal", "one-hot"), "those are seen where they are unpacked"
        return received

    def exchange(self, pieces: Message) -> list[Tensor | None]:
        received = super().exchange(pieces)
        for piece, words in zip(pieces, received, strict=True):
            if words is None:
                continue
            self.heard += 1
            if piece.joined == SUM:  # with the own words, which are no news
                words = words - piece.words  # type: ignore[operator]
            if isinstance(piece, Shaped) and words.dtype == torch.uint8:
                self.rows("heard", words, piece.shape)
            else:
                self._words("heard", words, piece.bits)
        return received

    # -- how it is kept -------------------------------------------------------------------------------------

    def _words(self, name: str, words: Tensor, ring: int) -> None:
        assert ring <= self.ring, f"a ring of {ring} bits: give the experiment a larger one"
        kept = self._by_copy(kernels.reduce(words.to(torch.int64).contiguous(), ring).numpy())
        bits = (kept[..., None] >> np.arange(ring)) & 1
        self.view.append(Seen(name, bits.reshape(self.copies, -1).astype(np.int8), kept, ring))

    def _bits(self, name: str, bits: np.ndarray) -> None:
        self.view.append(Seen(name, self._by_copy(bits).astype(np.int8), None, 1))

    def rows(self, name: str, packed: Tensor, shape: tuple[int, ...]) -> None:
        """Rows of packed bits, each of this shape."""
        count = math.prod(shape)
        for row in packed.reshape(-1, (count + 7) // 8).numpy():
            self._bits(name, np.unpackbits(row, count=count, bitorder="little").reshape(shape))

    def hots(self, parts: dict[int, Tensor], widths: Sequence[int]) -> None:
        """One-hot vectors as words."""
        for i, words in parts.items():
            if widths[i] == 0:  # a bit
                self._words("one-hot", words, 1)
                continue
            octets = words.contiguous().numpy().view(np.uint8)
            self._bits("one-hot", np.unpackbits(octets, axis=-1, bitorder="little")[..., : 1 << widths[i]])

    def _by_copy(self, array: np.ndarray) -> np.ndarray:
        """(copies, n); nothing is left out of a view, so a shape without the copies is an error."""
        (axis,) = [i for i, size in enumerate(array.shape) if size == self.copies]
        return np.moveaxis(array, axis, 0).reshape(self.copies, -1)


@contextmanager
def _seeing() -> Iterator[None]:
    """Meanwhile what parties draw as bytes is seen where it is unpacked."""
    own_bits, mask_rows, deal_rows, common = boolean.own_bits, boolean._mask_rows, boolean._deal_rows, boolean._common
    split_hots = lookup._split_hots

    def bits(party: Viewer, shape: tuple[int, ...]) -> Tensor:
        with patch.context() as only:
            only.setattr(boolean, "_mask_rows", mask_rows)
            drawn = own_bits(party, shape)
        party.rows("bit", drawn, shape)
        _here.opened = [*getattr(_here, "opened", []), shape]
        return drawn

    def masks(party: Viewer, count: int, row: int) -> Tensor:
        drawn = mask_rows(party, count, row)
        party.rows("bit", drawn, _here.shape)
        return drawn

    def dealt(party: Viewer, masks: Any, polynomials: Sequence[Any], row: int) -> Any:
        shape, found = _here.shape, deal_rows(party, masks, polynomials, row)
        if found is not None:
            party.rows("bit-deal", found, shape)
        return found

    def shape_of(secrets: Any) -> tuple[int, ...]:
        _here.shape = common(secrets)
        return _here.shape

    def piece(words: Tensor | None, size: int, row: int = 0, joined: int = ALONE) -> Piece:
        made = Shaped(words, size, row, joined)
        opened = getattr(_here, "opened", [])
        made.shape = opened.pop(0) if opened else getattr(_here, "shape", ())
        return made

    def split(buffer: Any, shape: Any, widths: Sequence[int], counts: Any, order: Any) -> dict[int, Tensor]:
        parts = split_hots(buffer, shape, widths, counts, order)
        _here.viewer.hots(parts, widths)
        return parts

    with pytest.MonkeyPatch.context() as patch:
        for name, seeing in {
            "own_bits": bits, "_mask_rows": masks, "_deal_rows": dealt, "_common": shape_of, "Piece": piece,
        }.items():  # fmt: skip
            patch.setattr(boolean, name, seeing)
        patch.setattr(lookup, "_split_hots", split)
        yield


def views(run: Run, copies: int, ring: int) -> tuple[list[list[Seen]], np.ndarray]:
    """The views of P0, P1 and P2, and the secret bits (copies,). P0 hears nothing."""
    kind = type("Viewer", (Viewer,), {"copies": copies, "ring": ring})
    members: Any = trio(kind=kind)
    secret = coins(copies, seed=7)
    with _seeing():
        parties(lambda party: run(party, secret), members, timeout=300)  # type: ignore[arg-type]
    assert members[DEALER].heard == 0
    return [member.view for member in members], secret.numpy().astype(np.int8)


# -- what a view says -----------------------------------------------------------------------------------------------


def bits_of(view: Sequence[Seen]) -> np.ndarray:
    """All bits of a view (copies, k)."""
    return np.concatenate([part.bits for part in view], 1)


def findings(view: Sequence[Seen], secret: np.ndarray, weights: Sequence[int] = (1,)) -> list[str]:
    """What tells the secret: bits, pairs of bits, sums and differences (with these weights) of words, xors of bits.

    All that a party holds, draws and hears is uniform together, because each word that it hears is padded by one that
    it lacks; whatever is not would tell of somebody's mask, and is found as well.
    """
    if not view:
        return []
    bits, combined = bits_of(view), _combined(view, weights)
    names = [part.name for part in view for _ in range(part.bits.shape[1])]
    found = []
    for signs, what in ((1 - 2 * secret.astype(np.float32), "tells the secret"), (None, "is not uniform")):
        found += _alone(bits, signs, f"a bit {what}")
        found += _alone(combined, signs, f"a sum or difference of words {what}")
        found += _pairs(bits, signs, names, what)
    if spans(bits, secret):
        found.append("an xor of bits of the view is the secret")
    if not independent(bits):
        found.append("an xor of bits of the view is constant")
    return found


def limit(tests: int) -> float:
    """What a correlation of so many bits reaches by chance, in units of the square root of the copies."""
    return math.sqrt(2 * math.log(2 * max(tests, 1) / CHANCE))


def _alone(bits: np.ndarray, signs: np.ndarray | None, what: str) -> list[str]:
    if not bits.shape[1]:
        return []
    ones = bits.sum(0, dtype=np.int32) if signs is None else bits.T.astype(np.float32) @ signs
    total = len(bits) if signs is None else signs.sum()
    score = np.abs(total - 2 * ones) / math.sqrt(len(bits))
    return [f"{what} ({score.max():.1f})"] if score.max() > limit(bits.shape[1]) else []


def _pairs(bits: np.ndarray, signs: np.ndarray | None, names: Sequence[str], what: str) -> list[str]:
    plus = 1 - 2 * bits.astype(np.float32)
    score = np.abs((plus if signs is None else plus * signs[:, None]).T @ plus) / math.sqrt(len(bits))
    np.fill_diagonal(score, 0)
    if score.max() <= limit(score.size // 2):
        return []
    i, j = np.unravel_index(score.argmax(), score.shape)
    return [f"a pair of bits, {names[i]} and {names[j]}, {what} ({score.max():.1f})"]  # type: ignore[index]


def _combined(view: Sequence[Seen], weights: Sequence[int]) -> np.ndarray:
    """Bits of a + w b and a - w b for words a, b of the view and weights w, in the smaller ring of the two."""
    words = [(part.words[:, i], part.ring) for part in view if part.words is not None and part.ring > 1
             for i in range(part.words.shape[1])]  # fmt: skip
    columns = []
    for i, (a, ring) in enumerate(words):
        for b, other in words[:i] + (words[i + 1 :] if weights != (1,) else []):
            low = np.arange(min(ring, other))
            columns += [(((a + sign * w * b)[:, None] >> low) & 1).astype(np.int8) for w in weights for sign in (1, -1)]
    return np.concatenate(columns, 1) if columns else np.empty((len(view[0].bits), 0), np.int8)


def _eliminated(bits: np.ndarray) -> tuple[dict[int, int], Callable[[int], int]]:
    """A basis of the columns over GF(2), and what is left of a column modulo it."""
    basis: dict[int, int] = {}

    def rest(column: int) -> int:
        while column and (known := basis.get(column.bit_length())):
            column ^= known
        return column

    for column in _columns(bits):
        if left := rest(column):
            basis[left.bit_length()] = left
    return basis, rest


def _columns(bits: np.ndarray) -> list[int]:
    return [int.from_bytes(column.tobytes(), "big") for column in np.packbits(bits.T.astype(np.uint8), axis=1)]


def rank(bits: np.ndarray) -> int:
    """How many columns are independent over GF(2)."""
    return len(_eliminated(bits)[0])


def independent(bits: np.ndarray) -> bool:
    """Whether no xor of columns is constant."""
    copies = bits.shape[1] + MORE
    assert len(bits) >= copies, f"{len(bits)} copies are too few for {bits.shape[1]} bits"
    ones = np.ones((copies, 1), np.int8)
    return rank(np.concatenate([ones, bits[:copies]], 1)) == bits.shape[1] + 1


def spans(bits: np.ndarray, secret: np.ndarray) -> bool:
    """Whether an xor of columns, and perhaps of a constant, is the secret."""
    copies = bits.shape[1] + MORE
    assert len(bits) >= copies, f"{len(bits)} copies are too few for {bits.shape[1]} bits"
    ones = np.ones((copies, 1), np.int8)
    _, rest = _eliminated(np.concatenate([ones, bits[:copies]], 1))
    return rest(_columns(secret[:copies, None])[0]) == 0
