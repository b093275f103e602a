"""A GGUF file's tokenizer as the files that a Hugging Face folder has: tokenizer.json, its settings, a chat template.

They travel with the model to its clients, who need nothing else. This file must not know tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from tokenizers import Tokenizer, processors

from puma.errors import UnsupportedModel
from puma.models.files.gguf import byte_pairs, pieces
from puma.models.files.gguf.vocabulary import Vocabulary
from puma.models.files.source import MORE_TEMPLATES, SETTINGS, TEMPLATE, TOKENIZER

MODELS: dict[str, Callable[[Vocabulary], Tokenizer]] = {
    "gpt2": byte_pairs.tokenizer,
    "llama": pieces.merged,
    "t5": pieces.unigram,
    "bert": pieces.word_pieces,
}
GEMMAS = ("gemma2", "gemma3")
NAMED_TEMPLATE = "tokenizer.chat_template."
NAMED = ("bos", "eos", "unk", "pad", "sep", "mask")


def files(fields: Mapping[str, Any]) -> dict[str, Callable[[], bytes]]:
    """What there is of the three, and chat templates that have names; each is made when it is first asked for."""
    found = Vocabulary(fields)
    template = fields.get("tokenizer.chat_template")
    made: dict[str, Callable[[], bytes]] = {}
    if found.model:
        made |= {TOKENIZER: cache(lambda: tokenizer(found).to_str().encode()), SETTINGS: lambda: _settings(found)}
    if isinstance(template, str):
        made[TEMPLATE] = template.encode
    for name, content in fields.items():
        if name.startswith(NAMED_TEMPLATE) and isinstance(content, str):
            made[f"{MORE_TEMPLATES}{name.removeprefix(NAMED_TEMPLATE)}.jinja"] = content.encode
    return made


def special_ids(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json and generation_config.json would say of the tokens that begin and end a text."""
    found = Vocabulary(fields)
    if not found.model:
        return {}
    ids = {"bos_token_id": found.special("bos"), "pad_token_id": found.special("pad")}
    return {name: i for name, i in ids.items() if i is not None} | {"eos_token_id": found.ends}


def tokenizer(found: Vocabulary) -> Tokenizer:
    """The tokenizer of these fields, with its special tokens and what it puts around a text."""
    make = MODELS.get(found.model)
    if make is None:
        what = f"the file's tokenizer is of the kind {found.model!r}"
        raise UnsupportedModel(what, f"puma implements {', '.join(MODELS)}; use the original checkpoint's folder")
    made = pieces.gemma(found) if found.model == "llama" and found.architecture in GEMMAS else make(found)
    added = [token for token in found.added() if made.token_to_id(token.content) is not None]
    made.add_special_tokens([token for token in added if token.special])
    made.add_tokens([token for token in added if not token.special])
    _frame(found, made)
    return made


def _frame(found: Vocabulary, made: Tokenizer) -> None:
    """Put around a text, or a pair of texts, what the file says, or llama.cpp where the file is silent."""
    first, last = _around(found)
    middle = [last] if found.architecture == "bert" and found.model != "bert" else [] if last else [first]
    single = [part for part in (first, "$A", last) if part]
    pair = [*single, *(part for part in (*middle, "$B", last) if part)]
    if found.model == "bert":
        pair = [*single, "$B:1", f"{last}:1"]
    special = [(token, i) for token in {first, last} if token and (i := made.token_to_id(token)) is not None]
    template = processors.TemplateProcessing(single=single, pair=pair, special_tokens=sorted(special))
    bytes_first = [processors.ByteLevel(trim_offsets=False)] if found.model == "gpt2" else []
    made.post_processor = processors.Sequence([*bytes_first, template])


def _around(found: Vocabulary) -> tuple[str | None, str | None]:
    """The tokens before and after a text."""
    if found.model == "bert":
        return found.spelled("bos") or "[CLS]", found.spelled("sep") or "[SEP]"
    begun = found.model == "llama" or (found.model == "gpt2" and byte_pairs.split_of(found) in byte_pairs.BEGUN)
    encoder = found.architecture == "bert"
    begin = found.spelled("bos") if found.get("add_bos_token", begun or encoder) else None
    end = found.spelled("eos") if found.get("add_eos_token", found.model == "t5" or encoder) else None
    return begin, end


def _settings(found: Vocabulary) -> bytes:
    """tokenizer_config.json: the special tokens as they are spelled."""
    return json.dumps({f"{name}_token": word for name in NAMED if (word := found.spelled(name)) is not None}).encode()
