"""A tiny chat model in a GGUF file: quantised LLaMA, byte-level tokenizer, chat template, alone in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
from tokenizers import pre_tokenizers

from tests.models import tiny
from tests.models.files import ggufs, vocabularies

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def write(place: Path, kind: Any = gguf.GGMLQuantizationType.Q8_0, temperature: float = 0.0, **settings: Any) -> Path:
    """The file, place/alone/chatty.gguf; what it was made of lies in place/folder. It may ask to be sampled from."""
    vocabulary, merges = vocabularies.byte_pairs(pre_tokenizers.ByteLevel(add_prefix_space=False), SPECIAL, 400)

    def extra(writer: gguf.GGUFWriter) -> None:
        kinds = dict.fromkeys(SPECIAL, vocabularies.CONTROL)
        vocabularies.byte_fields(vocabulary, merges, "smollm", kinds, bos=1, eos=2)(writer)
        writer.add_chat_template(TEMPLATE)
        if temperature:
            writer.add_float32("general.sampling.temp", temperature)

    wide = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}
    folder = tiny.llama(place / "folder", vocab_size=len(vocabulary), **wide | settings)
    (place / "alone").mkdir()
    return ggufs.write(place / "alone" / "chatty.gguf", folder, kind, extra)
