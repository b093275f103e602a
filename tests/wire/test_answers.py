"""Every answer that an engine gives has the format that clients await, whatever is asked of which architecture."""

from __future__ import annotations

from typing import Any

import pytest

from puma.engine import dry_run as dry
from puma.models.config import T5, Config, Decoder, Encoder, PatchEncoder, Vit
from puma.models.pooling import Dense, Pooling
from puma.mpc.share import Share
from puma.nn.pooling import PLAIN
from puma.wire.answers import Format, answers
from puma.wire.messages import NEXT, Encode, Generate, Input

SIZES: dict[str, Any] = {"vocab_size": 6, "hidden_size": 12, "intermediate_size": 16, "layers": 1, "heads": 2}
VIT: dict[str, Any] = {"image_size": 4, "patch_size": 2, "channels": 3, "hidden_size": 12, "intermediate_size": 20} | {
    "layers": 1, "heads": 2, "labels": ("a", "b")
}  # fmt: skip


JOB = Input([3, 2], [])
PADDED = Input([3, 3], [], padded=True)
POOLED = [Pooling(modes=modes) for modes in (("mean",), ("max",), ("lasttoken",), tuple(PLAIN))]
DENSE = [Dense(outputs=5, activation=activation) for activation in ("", "tanh", "relu", "sigmoid")]
CASES: list[tuple[Config, Generate | Encode]] = [
    (Decoder(**SIZES), Generate(JOB, 2)),
    (Decoder(**SIZES), Generate(JOB, 1, temperature=0.5)),
    (Decoder(**SIZES), Generate(Input([3], []), 2, reveal=True, paced=True, beams=2)),
    *((Decoder(**SIZES, logit_cap=cap), Generate(JOB, 1, reveal=True, paced=True)) for cap in (4.0, 30.0, 128.0)),
    *((Decoder(**SIZES), Encode(JOB, output)) for output in ("hidden", "pooled", NEXT)),
    (Decoder(**SIZES, logit_cap=30.0), Encode(JOB, NEXT)),
    (Decoder(**SIZES, labels=("a", "b")), Encode(JOB, "logits")),
    (T5(head_dim=6, encoder_layers=1, **SIZES), Generate(JOB, 1)),
    (T5(head_dim=6, encoder_layers=1, **SIZES), Generate(JOB, 1, reveal=True, paced=True)),
    *((Encoder(**SIZES), Encode(job, output)) for job in (JOB, PADDED) for output in ("hidden", "pooled")),
    *((Encoder(**SIZES, pooling=each), Encode(job, "pooled", skip=1)) for job in (JOB, PADDED) for each in POOLED),
    *((Encoder(**SIZES, pooling=Pooling(dense=(each,))), Encode(JOB, "pooled")) for each in DENSE),
    *((Encoder(**SIZES, labels=("a", "b", "c")), Encode(job, "logits")) for job in (JOB, PADDED)),
    (Encoder(**SIZES, labels=("a", "b", "c"), each_token=True), Encode(JOB, "logits")),
    (Encoder(**SIZES, predicts=True), Encode(JOB, "tokens", rows=[0, 2, 4], top=2)),
    *((Vit(**VIT), Encode(Input([5, 5], []), output)) for output in ("hidden", "pooled", "logits")),
    *((PatchEncoder(**VIT), Encode(Input([4], []), output)) for output in ("hidden", "logits")),
]


@pytest.mark.parametrize(("config", "job"), CASES, ids=range(len(CASES)))
def test_answers_are_as_clients_await_them(
    config: Config, job: Generate | Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[tuple[int, ...], int, int]] = []

    def noted(_: object, share: Share) -> None:
        given.append((tuple(share.shape), share.bits, share.frac))

    monkeypatch.setattr(dry, "answered", noted)
    dry.dry_run(config, job)
    awaited = answers(config, job)
    expected = [one for format in awaited for one in ([format, format.flags] if format.flagged else [format])]
    assert given == [format[:3] for format in expected]
    assert awaited[-1].flagged == len(job.input.lengths)
    assert all(format.below == (config.vocab_size if format.frac == 0 else 0) for format in awaited)


def test_a_header_is_the_format() -> None:
    header = Format((2, 3), 30, 14).header
    assert (header.shape, header.bits, header.frac) == ((2, 3), 30, 14)
