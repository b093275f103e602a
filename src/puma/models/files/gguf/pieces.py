"""Tokenizers of words and pieces from a GGUF file's vocabulary: SentencePiece's two kinds, and BERT's WordPiece.

SentencePiece spells a space as "▁". This file must not know files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from puma.errors import CheckpointError
from puma.models.files.gguf.vocabulary import BYTE, CONTROL, UNKNOWN, Vocabulary

SPACE = "▁"


def unknown(found: Vocabulary) -> int | None:
    """The token for what is none."""
    given = found.special("unk")
    return given if given is not None else next((i for i, kind in enumerate(found.kinds) if kind == UNKNOWN), None)


def merged(found: Vocabulary) -> Tokenizer:
    """LLaMA 1 and 2, Mistral, Phi-3: pairs are merged in the order of the scores of what they give."""
    ids = found.ids
    ranks = {token: -score for token, score in zip(found.tokens, found.scores, strict=True)}
    result = _pairs(found, ids, _merges(ids, ranks, found))
    steps: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE)]
    first = found.get("add_space_prefix", True)
    if first:
        steps = [normalizers.Prepend(SPACE), *steps]
    result.normalizer = normalizers.Sequence(steps)
    ends = [decoders.Strip(" ", 1, 0)] if first else []
    result.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *ends])
    return result


def gemma(found: Vocabulary) -> Tokenizer:
    """Gemma: pairs are merged in the order of the tokens that they give; nothing is put before a text.

    The file has tokens of several spaces as spaces, and the models' own tokenizer.json as merged pieces.
    """
    ids: dict[str, int] = {}
    for i, token in enumerate(found.tokens):
        ids.setdefault(SPACE * len(token) if token and not token.strip(" ") else token, i)
    result = _pairs(found, ids, _merges(ids, ids, found))
    result.normalizer = normalizers.Replace(" ", SPACE)
    result.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return result


def _pairs(found: Vocabulary, ids: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    at = unknown(found)
    name = None if at is None else found.tokens[at]
    return Tokenizer(models.BPE(ids, merges, unk_token=name, fuse_unk=True, byte_fallback=BYTE in found.kinds))


def _merges(ids: Mapping[str, int], ranks: Mapping[str, float], found: Vocabulary) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a token, by the rank of what it makes; then as transformers orders them."""
    known = {token for token, i in ids.items() if found.kinds[i] not in (CONTROL, UNKNOWN, BYTE)}
    pairs: list[tuple[tuple[float, int, int, int, int], tuple[str, str]]] = []
    for token in known:
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in known and right in known:
                pairs.append(((ranks[token], ids[token], ids[left], ids[right], cut), (left, right)))
    return [pair for _, pair in sorted(pairs)]


def unigram(found: Vocabulary) -> Tokenizer:
    """T5 and XLM-RoBERTa: the likeliest cut of a text by the tokens' scores."""
    pieces = list(zip(_blanks(found), map(float, found.scores), strict=True))
    result = Tokenizer(models.Unigram(pieces, unknown(found), byte_fallback=BYTE in found.kinds))
    table = found.get("precompiled_charsmap")
    if table:
        try:
            result.normalizer = normalizers.Precompiled(bytes(byte & 0xFF for byte in table))
        except Exception as error:  # the library raises plain Exception
            what = f"the file's table of characters cannot be read: {error}"
            raise CheckpointError(what, "convert the model again") from error
    scheme = "always" if found.get("add_space_prefix", True) else "never"
    words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme)]
    result.pre_tokenizer = pre_tokenizers.Sequence(words)
    result.decoder = decoders.Metaspace(SPACE, prepend_scheme=scheme)
    return result


def _blanks(found: Vocabulary) -> Sequence[str]:
    """The tokens; T5's blanks, which the file only numbers, as transformers calls them: the last one is the first."""
    if found.architecture != "t5":
        return found.tokens
    places = [i for i, token in enumerate(found.tokens) if token == f"[PAD{i}]"][:100]
    names = {i: f"<extra_id_{len(places) - 1 - order}>" for order, i in enumerate(places)}
    return [names.get(i, token) for i, token in enumerate(found.tokens)]


def word_pieces(found: Vocabulary) -> Tokenizer:
    """BERT: the file spells what begins a word with "▁", where vocab.txt spells what goes on with "##"."""
    words: dict[str, int] = {}
    for i, (token, kind) in enumerate(zip(found.tokens, found.kinds, strict=True)):
        words.setdefault(_word(token, kind), i)
    at = unknown(found)
    name = "[UNK]" if at is None else found.tokens[at]
    result = Tokenizer(models.WordPiece(words, unk_token=name, max_input_chars_per_word=100))
    # Nothing in the file says whether texts become lower case: they do if no token has a capital.
    lower = not any(token != token.lower() for token in words if not _named(token))
    result.normalizer = normalizers.BertNormalizer(lowercase=lower)
    result.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    result.decoder = decoders.WordPiece()
    return result


def _word(token: str, kind: int) -> str:
    """A token as vocab.txt has it."""
    if token.startswith(SPACE):
        return token[1:]
    return token if kind in (CONTROL, UNKNOWN) or _named(token) else "##" + token


def _named(token: str) -> bool:
    """Whether it is such as [CLS] or [unused1], which older files leave as they are."""
    return len(token) > 2 and token.startswith("[") and token.endswith("]")
