"""What the architectures of GGUF files are called here, and how their tensors are named and laid out: as data.

A tensor of a file is a tensor of a Hugging Face checkpoint under another name; where llama.cpp's converter changed its
numbers, they are changed back. This file must not know of families.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from puma.models.files.gguf.numbers import Change

LAYER = re.compile(r"((?:blk|enc\.blk|dec\.blk)\.)(\d+)\.")


@dataclass(frozen=True)
class Dialect:
    """An architecture: modules of a file -> those of a checkpoint, {} for a layer's number.

    `changes` are made to tensors whose module, as the file names it, matches; `heads` names which setting says how many
    heads there are in it.
    """

    architecture: str
    modules: Mapping[str, str]
    changes: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    unused: str = r"$^"

    def named(self, name: str) -> str | None:
        """A checkpoint's name of a tensor; its own if there is none, None if nobody needs it."""
        if re.fullmatch(self.unused, name):
            return None
        module, _, kind = name.rpartition(".")
        found = LAYER.match(name)
        ours = self.modules.get(LAYER.sub(r"\1{}.", module))
        return name if ours is None else f"{ours.format(found[2] if found else '')}.{kind}"

    def change(self, name: str, heads: int, kv_heads: int) -> Change | None:
        """What is to be done with a tensor's numbers."""
        for pattern, change in self.changes.items():
            if re.fullmatch(pattern, name):
                return partial(change, heads=kv_heads if ".attn_k." in name else heads)
        return None


def halves(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head whose turning pairs lie beside each other, as llama.cpp turns them: first the one half."""
    return tensor.reshape(heads, -1, 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def by_head(tensor: Tensor, heads: int) -> Tensor:
    """Rows of all queries, keys, values as rows of each head's query, key, value."""
    return tensor.reshape(3, heads, -1, *tensor.shape[1:]).swapaxes(0, 1).reshape(tensor.shape)


def turned(tensor: Tensor, heads: int) -> Tensor:
    """(out, in) as GPT-2 has it, (in, out)."""
    return tensor.T


def less_one(tensor: Tensor, heads: int) -> Tensor:
    """The weights of a norm as Gemma has them."""
    return tensor - 1


LAYERS = "model.layers.{}."
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ATTENTION = {
    "blk.{}.attn_norm": LAYERS + "input_layernorm",
    "blk.{}.attn_q": LAYERS + "self_attn.q_proj",
    "blk.{}.attn_k": LAYERS + "self_attn.k_proj",
    "blk.{}.attn_v": LAYERS + "self_attn.v_proj",
    "blk.{}.attn_output": LAYERS + "self_attn.o_proj",
    "blk.{}.attn_q_norm": LAYERS + "self_attn.q_norm",
    "blk.{}.attn_k_norm": LAYERS + "self_attn.k_norm",
}
FEED_FORWARD = {
    "blk.{}.ffn_norm": LAYERS + "post_attention_layernorm",
    "blk.{}.ffn_gate": LAYERS + "mlp.gate_proj",
    "blk.{}.ffn_up": LAYERS + "mlp.up_proj",
    "blk.{}.ffn_down": LAYERS + "mlp.down_proj",
}
DECODER = OUTSIDE | ATTENTION | FEED_FORWARD
PHI3 = OUTSIDE | {
    "blk.{}.attn_norm": LAYERS + "input_layernorm",
    "blk.{}.attn_qkv": LAYERS + "self_attn.qkv_proj",
    "blk.{}.attn_output": LAYERS + "self_attn.o_proj",
    "blk.{}.ffn_norm": LAYERS + "post_attention_layernorm",
    "blk.{}.ffn_up": LAYERS + "mlp.gate_up_proj",
    "blk.{}.ffn_down": LAYERS + "mlp.down_proj",
}
GEMMA = DECODER | {
    "blk.{}.post_attention_norm": LAYERS + "post_attention_layernorm",
    "blk.{}.ffn_norm": LAYERS + "pre_feedforward_layernorm",
    "blk.{}.post_ffw_norm": LAYERS + "post_feedforward_layernorm",
}
BEHIND = {name: ours for name, ours in DECODER.items() if name not in ("blk.{}.attn_norm", "blk.{}.ffn_norm")} | {
    "blk.{}.post_attention_norm": LAYERS + "post_attention_layernorm",
    "blk.{}.post_ffw_norm": LAYERS + "post_feedforward_layernorm",
}
GPT2 = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "blk.{}.attn_norm": "transformer.h.{}.ln_1",
    "blk.{}.attn_qkv": "transformer.h.{}.attn.c_attn",
    "blk.{}.attn_output": "transformer.h.{}.attn.c_proj",
    "blk.{}.ffn_norm": "transformer.h.{}.ln_2",
    "blk.{}.ffn_up": "transformer.h.{}.mlp.c_fc",
    "blk.{}.ffn_down": "transformer.h.{}.mlp.c_proj",
}
NEOX = {
    "token_embd": "gpt_neox.embed_in",
    "output_norm": "gpt_neox.final_layer_norm",
    "output": "embed_out",
    "blk.{}.attn_norm": "gpt_neox.layers.{}.input_layernorm",
    "blk.{}.attn_qkv": "gpt_neox.layers.{}.attention.query_key_value",
    "blk.{}.attn_output": "gpt_neox.layers.{}.attention.dense",
    "blk.{}.ffn_norm": "gpt_neox.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_up": "gpt_neox.layers.{}.mlp.dense_h_to_4h",
    "blk.{}.ffn_down": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
}
BERT = {
    "token_embd": "bert.embeddings.word_embeddings",
    "position_embd": "bert.embeddings.position_embeddings",
    "token_types": "bert.embeddings.token_type_embeddings",
    "token_embd_norm": "bert.embeddings.LayerNorm",
    "blk.{}.attn_q": "bert.encoder.layer.{}.attention.self.query",
    "blk.{}.attn_k": "bert.encoder.layer.{}.attention.self.key",
    "blk.{}.attn_v": "bert.encoder.layer.{}.attention.self.value",
    "blk.{}.attn_output": "bert.encoder.layer.{}.attention.output.dense",
    "blk.{}.attn_output_norm": "bert.encoder.layer.{}.attention.output.LayerNorm",
    "blk.{}.ffn_up": "bert.encoder.layer.{}.intermediate.dense",
    "blk.{}.ffn_down": "bert.encoder.layer.{}.output.dense",
    "blk.{}.layer_output_norm": "bert.encoder.layer.{}.output.LayerNorm",
    "cls": "bert.pooler.dense",
    "cls.output": "classifier",
}
T5_SIDES = (("enc", "encoder", 1), ("dec", "decoder", 2))


def _t5(gated: bool) -> dict[str, str]:
    """Of both stacks; the decoder's layers have a part more."""
    found = {"token_embd": "shared", "output": "lm_head"}
    for theirs, ours, last in T5_SIDES:
        blk, layer = f"{theirs}.blk.{{}}.", f"{ours}.block.{{}}.layer."
        dense = f"{layer}{last}.DenseReluDense."
        found |= {f"{blk}attn_{x}": f"{layer}0.SelfAttention.{x}" for x in "qkvo"}
        found |= {f"{blk}cross_attn_{x}": f"{layer}1.EncDecAttention.{x}" for x in "qkvo"}
        found |= {
            f"{theirs}.output_norm": f"{ours}.final_layer_norm",
            f"{blk}attn_norm": f"{layer}0.layer_norm",
            f"{blk}attn_rel_b": f"{layer}0.SelfAttention.relative_attention_bias",
            f"{blk}cross_attn_norm": f"{layer}1.layer_norm",
            f"{blk}ffn_norm": f"{layer}{last}.layer_norm",
            f"{blk}ffn_gate": dense + "wi_0",
            f"{blk}ffn_up": dense + ("wi_1" if gated else "wi"),
            f"{blk}ffn_down": dense + "wo",
        }
    return found


QUERIES = r"blk\.\d+\.attn_[qk]\.(weight|bias)"
MATRICES = r"blk\.\d+\.(attn_qkv|attn_output|ffn_up|ffn_down)\.weight"
JOINED = r"blk\.\d+\.attn_qkv\.(weight|bias)"
FREQUENCIES = r"rope_(freqs|factors_long|factors_short)\.weight|blk\.\d+\.(attn_)?rot_embd\..*|blk\.\d+\.attn_rot_embd"
STRAY = r"dec\.blk\.\d+\.cross_attn_rel_b\.weight"  # old T5 checkpoints have one, which transformers ignores
DIALECTS = {
    "llama": Dialect("LlamaForCausalLM", DECODER, {QUERIES: halves}, FREQUENCIES),
    "qwen2": Dialect("Qwen2ForCausalLM", DECODER),
    "qwen3": Dialect("Qwen3ForCausalLM", DECODER),
    "phi3": Dialect("Phi3ForCausalLM", PHI3, unused=FREQUENCIES),
    "smollm3": Dialect("SmolLM3ForCausalLM", DECODER, {QUERIES: halves}, FREQUENCIES),
    "olmo2": Dialect("Olmo2ForCausalLM", BEHIND),
    "granite": Dialect("GraniteForCausalLM", DECODER, {QUERIES: halves}, FREQUENCIES),
    "gemma": Dialect("GemmaForCausalLM", DECODER, {r".*norm\.weight": less_one}),
    "gemma2": Dialect("Gemma2ForCausalLM", GEMMA, {r".*norm\.weight": less_one}),
    "gemma3": Dialect("Gemma3ForCausalLM", GEMMA, {r".*norm\.weight": less_one}),
    "gpt2": Dialect("GPT2LMHeadModel", GPT2, {MATRICES: turned}),
    "gptneox": Dialect("GPTNeoXForCausalLM", NEOX, {JOINED: by_head}),
    "bert": Dialect("BertModel", BERT),
    "t5": Dialect("T5ForConditionalGeneration", _t5(gated=False), unused=STRAY),
}
GATED_T5 = Dialect("T5ForConditionalGeneration", _t5(gated=True), unused=STRAY)
