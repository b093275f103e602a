"""Byte-level BPE, as GPT-2, LLaMA 3 and Qwen have it, from a GGUF file's vocabulary and merges.

How a text is cut before merges apply is a name in the file, whose patterns are the ones of the models' own
tokenizer.json. This file must not know files.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from puma.errors import CheckpointError, UnsupportedModel
from puma.models.files.gguf.vocabulary import Vocabulary

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{REST}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}|{SLASHED}"
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{SLASHED}"
)
PATTERNS = {  # by the names in tokenizer.ggml.pre
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe"), LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), QWEN2),
    "tekken": TEKKEN,
    "gpt-4o": GPT4O,
}
GPT2 = ("gpt-2", "roberta-bpe", "olmo")
DIGITS = ("smollm", "starcoder", "refact")  # GPT-2's after each digit has been set apart
WHOLE = ("llama-bpe", "llama3", "llama-v3", "falcon3", "tekken")  # a word that is a token is not cut into merges
BEGUN = WHOLE  # where a file does not say otherwise, a text begins with the token for that
COMPOSED = ("qwen2", "olmo")  # characters are composed first (NFC)
UNSAID = {"gpt2": "gpt-2", "qwen2": "qwen2", "qwen3": "qwen2", "gptneox": "olmo"}  # files from before there were names


def split_of(found: Vocabulary) -> str:
    """The name of how a text is cut; UnsupportedModel for one that is not implemented."""
    name = found.split if found.split not in ("", "default") else UNSAID.get(found.architecture, "")
    known = (*PATTERNS, *GPT2, *DIGITS)
    if name not in known:
        what = f"the file names the pre-tokenizer {name!r}" if name else "the file names no pre-tokenizer"
        hint = f"puma implements {', '.join(known)}; convert an older file again with a newer llama.cpp"
        raise UnsupportedModel(what, hint)
    return name


def tokenizer(found: Vocabulary) -> Tokenizer:
    """Without special tokens and what is put around a text."""
    name, merges = split_of(found), found.get("merges")
    if not isinstance(merges, list):
        raise CheckpointError("the file holds tokens without merges", "convert the model again")
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    try:
        model = models.BPE(found.ids, pairs, ignore_merges=name in WHOLE)
    except Exception as error:  # the library raises plain Exception, for a merge of what is no token
        raise CheckpointError(f"the file's merges do not fit its tokens: {error}", "convert the model again") from error
    result = Tokenizer(model)
    if name in COMPOSED:
        result.normalizer = normalizers.NFC()
    result.pre_tokenizer = _cut(name)
    result.decoder = decoders.ByteLevel()
    return result


def _cut(name: str) -> pre_tokenizers.PreTokenizer:
    """What cuts a text into words, whose bytes are then spelled as characters."""
    if name in PATTERNS:
        split = pre_tokenizers.Split(Regex(PATTERNS[name]), behavior="isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    usual = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, usual]) if name in DIGITS else usual
