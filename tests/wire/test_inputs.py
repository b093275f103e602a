"""Inputs of each kind have one surface: what is sent has the size that both sides expect, and what is received is what
was laid out.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from puma.errors import InputError, UsageError
from puma.models.architectures.seq2seq.config import Sound
from puma.models.begun import Begun
from puma.models.config import Bert, Config, Llama, PatchEncoder, Seq2Seq, Vit
from puma.mpc.fixed import ACTIVATION
from puma.mpc.party import Party
from puma.mpc.retrieval import Choice
from puma.mpc.share import Share
from puma.wire import inputs
from puma.wire.input_share import Flagged, Laid, Seeds
from puma.wire.messages import Input

SIZES: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 2}
LLAMA = Llama(vocab_size=20, **SIZES)
BERT = Bert(vocab_size=20, **SIZES)
VIT = Vit(image_size=6, patch_size=2, channels=1, **SIZES)
PATCHES = PatchEncoder(image_size=6, patch_size=2, channels=1, **SIZES)
WORDS = Seq2Seq(vocab_size=20, encoder_layers=1, **SIZES)
HEARS = Seq2Seq(
    vocab_size=20, encoder_layers=1, context=5, answers=9, pre_norms=True, embedded_norm=False, sound=Sound(bands=3),
    **SIZES,
)  # fmt: skip
WINDOWS = [torch.arange(30.0).reshape(10, 3) / 32, -torch.ones(10, 3)]
IMAGES = [torch.arange(36.0).reshape(9, 4) / 32, -torch.ones(9, 4)]
PROMPTS = [[3, 19, 0], [7]]
CASES: list[tuple[Config, list[Any], int, list[int]]] = [
    (LLAMA, PROMPTS, 0, [3, 1]),
    (BERT, PROMPTS, 4, [4, 4]),
    (VIT, IMAGES, 0, [10, 10]),
    (PATCHES, IMAGES, 0, [9, 9]),
    (HEARS, WINDOWS, 0, [5, 5]),
]
NAMES = ["tokens", "padded tokens", "images", "images without a first row", "sound"]


def opened(shares: list[Share]) -> torch.Tensor:
    """The secret of P0's, P1's and P2's shares, whose evaluators must hold the same m."""
    dealer, first, second = (share.components for share in shares)
    assert torch.equal(first[0], second[0])
    assert torch.equal(dealer[0], first[1]) and torch.equal(dealer[1], second[1])
    words = first[0] - dealer[0] - dealer[1]
    bits = shares[0].bits
    words = words & ((1 << bits) - 1)
    return torch.where(words >= 1 << (bits - 1), words - (1 << bits), words)


@pytest.mark.parametrize(("config", "items", "padded", "lengths"), CASES, ids=NAMES)
def test_both_sides_agree(config: Config, items: list[Any], padded: int, lengths: list[int]) -> None:
    laid = inputs.laid_out(config, items, padded)
    job = Input(lengths, [], padded=bool(padded))
    assert laid.lengths == lengths
    seeds = Seeds.fresh()
    sent = inputs.share_input(config, laid, seeds)
    sizes = [part.payload.numel() for part in sent]
    assert sizes == [inputs.payload_bytes(config, rank, job) for rank in range(3)]
    assert sizes[0] == 0 and sum(sizes) == inputs.upload_bytes(config, job)
    received = []
    for rank, part in enumerate(sent):
        assert (part.masks, part.choices) == (seeds.of(rank)[0], seeds.of(rank)[1][: len(part.choices)])
        mine = Input(lengths, part.masks, part.choices, padded=bool(padded))
        received.append(inputs.receive_input(config, Party(rank, {}, {}), mine, part.payload))
    dry = inputs.imagined(config, Party(1), job)
    assert type(dry) is type(received[1])
    if padded:
        assert opened([each.flags for each in received]).tolist() == [0, 0, 0, 1, 0, 1, 1, 1] == list(laid.flags)
        assert dry.flags.shape == received[1].flags.shape  # type: ignore[union-attr]
        received, dry = [each.rows for each in received], dry.rows  # type: ignore[union-attr]
    assert dry.shape == received[1].shape  # type: ignore[union-attr]
    if isinstance(received[0], Share):
        assert torch.equal(opened(received) / 2**ACTIVATION, torch.cat(items).double())


@pytest.mark.parametrize(("config", "items", "lengths"), [(WORDS, PROMPTS, [3, 1]), (HEARS, WINDOWS, [5, 5])])
def test_what_answers_begin_with_goes_along(config: Config, items: list[Any], lengths: list[int]) -> None:
    laid = inputs.laid_out(config, items, begun=[[4, 9], [5, 4]])
    assert (laid.lengths, laid.count) == (lengths, 2)
    job, seeds = Input(lengths, [], begun=2), Seeds.fresh()
    sent = inputs.share_input(config, laid, seeds)
    assert [part.payload.numel() for part in sent] == [inputs.payload_bytes(config, rank, job) for rank in range(3)]
    received = []
    for rank, part in enumerate(sent):
        assert (part.masks, part.choices) == seeds.of(rank)
        mine = Input(lengths, part.masks, part.choices, begun=2)
        received.append(inputs.receive_input(config, Party(rank, {}, {}), mine, part.payload))
    dry = inputs.imagined(config, Party(1), job)
    for found in (dry, received[1]):
        assert isinstance(found, Begun) and found.tokens.shape == (4, 20)
        assert found.prompts.shape == (laid.rows.shape if laid.rows.ndim == 2 else (4, 20))
    if laid.rows.ndim == 2:
        assert torch.equal(opened([each.prompts for each in received]) / 2**ACTIVATION, laid.rows.double())  # type: ignore[union-attr]
    fed = inputs.share_input(config, Laid([1, 1], torch.tensor([3, 19])))
    assert [part.payload.numel() for part in fed] == [
        inputs.payload_bytes(config, rank, Input([1, 1], [])) for rank in range(3)
    ]
    (whole,) = {type(inputs.receive_input(config, Party(r, {}, {}), Input([1, 1], p.masks, p.choices), p.payload))
                for r, p in enumerate(fed)}  # fmt: skip
    assert whole is Choice


@pytest.mark.parametrize(
    ("config", "items", "begun", "padded"),
    [
        (LLAMA, PROMPTS, [[1], [2]], 0),
        (WORDS, PROMPTS, [[1], [2, 3]], 0),
        (WORDS, PROMPTS, [[1]], 0),
        (WORDS, PROMPTS, [[20], [2]], 0),
        (VIT, IMAGES, [[1], [2]], 0),
    ],
)
def test_answers_that_cannot_begin_so(config: Config, items: Any, begun: list[list[int]], padded: int) -> None:
    with pytest.raises(InputError, match=r"cannot begin with tokens|not prompts"):
        inputs.laid_out(config, items, padded, begun)


def test_flags_of_beams_are_counted_apart() -> None:
    laid, job = Laid([1, 1], torch.tensor([4, 5]), [0, 1, 1, 0]), Input([1, 1], [], padded=True)
    sent = inputs.share_input(LLAMA, laid)
    assert [part.payload.numel() for part in sent] == [inputs.payload_bytes(LLAMA, r, job, 4) for r in range(3)]
    received = []
    for rank, part in enumerate(sent):
        mine = Input([1, 1], part.masks, part.choices, padded=True)
        received.append(inputs.receive_input(LLAMA, Party(rank, {}, {}), mine, part.payload, 4))
    assert all(isinstance(each, Flagged) for each in received)
    assert opened([each.flags for each in received]).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("config", "items", "says"),
    [
        (LLAMA, [], "not prompts of a vocabulary of 20"),
        (LLAMA, [[1], []], "not prompts"),
        (LLAMA, [[20]], "not prompts"),
        (LLAMA, [[-1]], "not prompts"),
        (VIT, [], "not images of 9 patches of 4 numbers"),
        (VIT, [torch.zeros(8, 4)], "not images"),
        (VIT, [torch.full((9, 4), 64.0)], "beyond 64"),
        (VIT, [torch.full((9, 4), float("nan"))], "beyond 64"),
        (HEARS, [], "not windows of 10 rows of 3 bands"),
        (HEARS, [torch.zeros(5, 3)], "not windows"),
        (HEARS, [torch.full((10, 3), 4.0)], "beyond 4"),
        (HEARS, [torch.full((10, 3), float("nan"))], "beyond 4"),
    ],
)
def test_what_is_no_input(config: Config, items: list[Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        inputs.laid_out(config, items)


def test_images_are_not_padded() -> None:
    with pytest.raises(UsageError, match="nothing pads them"):
        inputs.laid_out(VIT, IMAGES, 16)
    with pytest.raises(UsageError, match="nothing pads them"):
        inputs.payload_bytes(VIT, 1, Input([10], [], padded=True))


def test_nothing_of_an_input_is_shown() -> None:
    laid = inputs.laid_out(LLAMA, [[13, 17]])
    shown = f"{laid!r} {Seeds.fresh()!r} {inputs.share_input(LLAMA, laid)!r}"
    assert "13" not in shown and "\\x" not in shown and "tensor" not in shown
