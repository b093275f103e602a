"""Tiny tokenizers whose tokens may be parts of characters: byte-level, as GPT-2's, and with bytes to fall back on, as
LLaMA 2's. Both know `hi` with a space before it and without.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from puma.models.reading.spelling import LETTERS
from tests.models import tiny

SIZE = 270


def byte_level() -> Tokenizer:
    """All bytes, `hi` and ` hi`."""
    words = ["<s>", "</s>", *LETTERS, "hi", "Ġhi"]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [("h", "i"), ("Ġ", "hi")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<s>", "</s>"])
    return made


def falling_back() -> Tokenizer:
    """Words behind a mark for spaces; `a` is a token beside its byte."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i", "hi", "▁hi", "a"]
    made = Tokenizer(
        models.BPE(
            {word: i for i, word in enumerate(words)}, [("h", "i"), ("▁", "hi")], unk_token="<unk>", byte_fallback=True
        )
    )
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return made


def llama(folder: Path, tokenizer: Tokenizer) -> Path:
    """A tiny LLaMA with this tokenizer, whose vocabulary is a little larger than the tokenizer's."""
    made = tiny.llama(folder, num_hidden_layers=1, vocab_size=SIZE, max_position_embeddings=64)
    tokenizer.save(str(made / "tokenizer.json"))
    return made
