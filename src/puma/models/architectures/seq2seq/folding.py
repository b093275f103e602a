"""The tensors of an encoder and a decoder as a checkpoint has them, and what becomes of them at the owner.

It must not know tensors from those that are not read yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

import puma.nn.modules as nn
from puma.models.architecture import Shapes
from puma.models.architectures.seq2seq.config import Seq2Seq
from puma.models.architectures.seq2seq.model import Model
from puma.models.architectures.seq2seq.stem import fold_stem, unfolded
from puma.models.folding import fold_activation
from puma.nn.modules import Value

KINDS = ("weight", "bias")
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
INNER = ("mlp.up_proj",)
WAVE = 10000.0  # of the slowest sine


def stacks(config: Seq2Seq) -> dict[str, int]:
    """The stacks that there are, and how many layers each has."""
    return {"encoder": config.encoder_layers} | ({} if config.headless else {"decoder": config.layers})


def last_norm(config: Seq2Seq, stack: str) -> str:
    """The norm behind the last layer of a stack."""
    return f"{stack}.norm" if config.pre_norms else f"{stack}.layers.{stacks(config)[stack] - 1}.mlp_norm"


def readers(config: Seq2Seq) -> Iterator[tuple[str, list[str]]]:
    """Each norm, and the matrices that read it alone and so take its affine."""
    crossing = [f"decoder.layers.{i}.cross_attn." for i in range(stacks(config).get("decoder", 0))]
    for stack, count in stacks(config).items():
        before = f"{stack}.embedded_norm" if config.embedded_norm else ""
        for i in range(count):
            layer = f"{stack}.layers.{i}."
            steps = [("attention_norm", QKV), ("mlp_norm", INNER)]
            steps[1:1] = [("cross_norm", ("cross_attn.q_proj",))] if stack == "decoder" else []
            for norm, matrices in steps:
                reads = layer + norm if config.pre_norms else before
                if reads:
                    yield reads, [layer + name for name in matrices]
                before = layer + norm
    if crossing:
        yield last_norm(config, "encoder"), [each + part for each in crossing for part in ("k_proj", "v_proj")]


def plain(config: Seq2Seq) -> Shapes:
    """Names and shapes before folding."""
    shapes, d = Model(config).shapes(), config.hidden_size
    shapes |= {f"{norm}.{kind}": (d,) for norm, _ in readers(config) for kind in KINDS}
    made = () if config.key_bias else ("k_proj.bias",)
    if config.positions != "learned":
        made = (*made, "positions.weight")
    found = {name: shape for name, shape in shapes.items() if not (made and name.endswith(made))}
    found = unfolded(found, d, config.sound.bands) if config.sound else found
    if "words.bias" in found:
        del found["words.bias"]
        found["final_logits_bias"] = (1, config.vocab_size)
    return found


def fold(config: Seq2Seq, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: fold norms, 1/sqrt(head_dim) and the embedding's scale into matrices; make positions."""
    folded = dict(plain)
    for norm, matrices in readers(config):
        nn.absorb(folded, norm, matrices)
    for stack, count in stacks(config).items():
        half = config.encoder if stack == "encoder" else config.decoder
        for i in range(count):
            layer = f"{stack}.layers.{i}."
            for attention in ("self_attn", "cross_attn"):
                nn.rescale(folded, f"{layer}{attention}.q_proj", half.head_dim**-0.5)
            fold_activation(config.activation, folded, f"{layer}mlp.up_proj", f"{layer}mlp.down_proj")
        if config.positions != "learned":
            length = config.context if stack == "encoder" else config.answers
            folded[f"{stack}.positions.weight"] = waves(length, config.hidden_size, config.positions == "offset")
    if config.embedding_scale:
        rest = config.embedding_scale / config.embedding_factor
        nn.rescale(folded, "shared", rest)
        if config.tied and config.generates:  # the norm before the head is read by it alone
            nn.rescale(folded, last_norm(config, "decoder"), 1 / rest)
    if config.sound:
        fold_stem(folded, config.hidden_size)
    if "final_logits_bias" in folded:
        folded["words.bias"] = folded["final_logits_bias"][0]
    return {name: folded[name] for name in Model(config).shapes()}


def waves(length: int, size: int, offset: bool) -> torch.Tensor:
    """Positions (length, size) as sines and, in the second half, cosines of slower and slower waves.

    Source: Attention Is All You Need (Vaswani et al. 2017), as Marian lays it out; with an `offset` as tensor2tensor
    does, counted from 2 on as fairseq counts.
    """
    half = size // 2
    if offset:
        rates = WAVE ** (-torch.arange(half, dtype=torch.float64) / (half - 1))
        angles = (torch.arange(length, dtype=torch.float64) + 2)[:, None] * rates
        found = torch.cat([angles.sin(), angles.cos()], 1)
        return torch.cat([found, found.new_zeros(length, size % 2)], 1).float()
    rates = WAVE ** (-2 * torch.arange((size + 1) // 2, dtype=torch.float64) / size)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles[:, :half].cos()], 1).float()
