"""A message of several pieces: the bytes of each as by itself, and read again as the same pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from puma.kernels import plain
from puma.kernels.rounds import message
from tests.kernels.words import views, words


def pieces() -> list[message.Part]:
    odd = words(3, 5)
    return [
        (words(7), 48), (odd & 1, 1), (words(2, 3) % 256, 13), (words(0), 20), (words(5, seed=1).to(torch.uint8), 8),
        (views(4, 6)["transposed"], 34), (words(3, 4).to(torch.uint8).T, 8), (words(1), 64),
    ]  # fmt: skip


def test_pieces_lie_behind_each_other() -> None:
    expected = [x.reshape(-1) if x.dtype == torch.uint8 else plain.pack(x, bits) for x, bits in pieces()]
    written = message.write(pieces())
    assert bytes(written) == torch.cat(expected).numpy().tobytes()
    assert [each.numel() for each in expected] == message.sizes(pieces())


def test_what_was_written_is_read() -> None:
    found = message.read(bytearray(message.write(pieces())), pieces())
    for got, (x, bits) in zip(found, pieces(), strict=True):
        assert got.shape == x.shape and got.dtype == x.dtype
        assert torch.equal(got, x if x.dtype == torch.uint8 else plain.reduce(x, bits))


def test_bytes_stay_where_they_came() -> None:
    """They are the caller's to keep, so that nothing is copied."""
    came = np.frombuffer(bytearray(range(6)), np.uint8)
    (found,) = message.read(came.data, [(torch.zeros(6, dtype=torch.uint8), 8)])
    assert found.data_ptr() == came.ctypes.data


def test_nothing_at_all() -> None:
    empty = [(words(0), 48), (torch.empty(0, dtype=torch.uint8), 8)]
    assert len(message.write(empty)) == 0 and len(message.write([])) == 0
    assert [x.shape for x in message.read(b"", empty)] == [(0,), (0,)]


@pytest.mark.parametrize("length", [0, 5, 7])
def test_a_message_of_another_length(length: int) -> None:
    with pytest.raises(ValueError, match="bytes are not"):
        message.read(bytearray(length), [(words(1), 48)])
