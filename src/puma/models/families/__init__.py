"""Families: how checkpoints say what an architecture computes, as data; by the name in "architectures" of config.json.

A file holds the dialects that resemble each other. To add one, see docs/models.md.
"""

from __future__ import annotations

import re
from typing import Any

from puma.models.families import (
    bart,
    bert,
    clip,
    deberta,
    gpt,
    llama,
    mixtures,
    modernbert,
    mpnet,
    patches,
    qwen3_5,
    relatives,
    rotary_bert,
    t5,
    vit,
    whisper,
)  # fmt: skip
from puma.models.family import Family

FAMILIES: dict[str, Family] = (
    llama.families()
    | relatives.families()
    | mixtures.families()
    | qwen3_5.families()
    | gpt.families()
    | bert.families()
    | mpnet.families()
    | deberta.families()
    | rotary_bert.families()
    | modernbert.families()
    | t5.families()
    | bart.families()
    | whisper.families()
    | vit.families()
    | clip.families()
    | patches.families()
)

SEEING = {  # models that read images, too -> of texts alone
    "Gemma3ForConditionalGeneration": "Gemma3ForCausalLM",
    "Qwen3_5ForConditionalGeneration": "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForConditionalGeneration": "Qwen3_5MoeForCausalLM",
}
CHOOSING = (
    "forced_bos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "is_multilingual",
)  # fmt: skip
MARKS = ("bos_token_id", "eos_token_id", "pad_token_id")


def of_text(raw: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a model that reads texts, out of one that also reads images; any other as it is.

    What is said of the whole counts for its head and for what begins and ends a text.
    """
    inside, name = raw.get("text_config"), named(raw)
    if name not in SEEING or not isinstance(inside, dict):
        return raw
    marks = {mark: raw[mark] for mark in MARKS if raw.get(mark) is not None}
    tied = {"tie_word_embeddings": raw.get("tie_word_embeddings", True)}
    return inside | marks | tied | {"architectures": [SEEING[name]]}


# What is several models, and how one of them is named.
WHOLES = {"CLIPModel": "name one of its towers: FOLDER/text_model or FOLDER/vision_model"}


def part_of(raw: dict[str, Any], part: str) -> dict[str, Any]:
    """The config.json of a part that is a model of its own, in that of the whole."""
    return bert.matrix(raw, part) if part.endswith("_linear") else clip.tower(raw, part)


def started(raw: dict[str, Any], generation: dict[str, Any]) -> dict[str, Any]:
    """A config.json with the token that answers of an encoder and decoder begin with: what generation_config.json has
    comes before what config.json has, and in each the token that begins texts comes behind the one that is meant. What
    else is said of single tokens that are chosen or not comes from the former, if it is there, alone.
    """
    names, said = ("decoder_start_token_id", "bos_token_id"), generation or raw
    first = next((found[name] for found in (generation, raw) for name in names if found.get(name) is not None), None)
    ends = generation.get("eos_token_id", raw.get("eos_token_id"))
    return raw | {name: said.get(name) for name in CHOOSING} | {"decoder_start_token_id": first, "eos_token_id": ends}


def bare(raw: dict[str, Any]) -> dict[str, Any]:
    """A config.json of the model without its head, whose states alone are asked for; of the encoder, where there are
    both halves. One that is not known without a head stays as it is.
    """
    name = named(raw)
    stem = re.sub(r"(For[A-Z]\w*|LMHeadModel|(Encoder|Text)?Model)$", "", name)
    kinds = (f"{stem}{kind}" for kind in ("EncoderModel", "TextModel", "Model"))
    return raw | {"architectures": [next((kind for kind in kinds if kind in FAMILIES), name)]}


def named(raw: dict[str, Any]) -> str:
    """The family that a config.json names or describes."""
    described = patches.NAME if patches.described(raw) else "no architecture"
    return (raw.get("architectures") or [described])[0]
