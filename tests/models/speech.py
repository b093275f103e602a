"""A tiny Whisper with a tokenizer that knows languages and tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from tests.models import tiny, zoo

LANGUAGES = ("en", "de", "fr")
SPECIAL = ("<|start|>", *(f"<|{code}|>" for code in LANGUAGES), "<|transcribe|>", "<|translate|>", "<|notimestamps|>")
WINDOW = 2 * zoo.WHISPER["max_source_positions"] * 160  # samples


def write(folder: Path, ticks: int = 0, **settings: Any) -> Path:
    """A folder; `settings` are those of its generation_config.json. It knows so many times."""
    words = tiny.tokenizer("$A")
    words.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    size = words.get_vocab_size() + ticks
    start = words.token_to_id(SPECIAL[0])
    own = {"vocab_size": size, "decoder_start_token_id": start, "max_target_positions": 9}
    zoo.write(folder, "whisper", tie_word_embeddings=False, **own)
    words.save(str(folder / "tokenizer.json"))
    said = {"decoder_start_token_id": start, "eos_token_id": 2, "is_multilingual": True} | settings
    (folder / "generation_config.json").write_text(json.dumps(said))
    return folder
