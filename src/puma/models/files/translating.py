"""A tokenizer.json for models that translate: of two SentencePiece models and one vocabulary, or with languages' codes.

Each way is that of a class of tokenizers in the library (transformers 5). This file must not know models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from puma.errors import CheckpointError
from puma.models.files.pieces import OWN, UNIGRAM, merges, parse
from puma.models.files.words import SPACE, Raw, found, framed, likeliest, text, whole
from puma.models.reading.lacking import between

CODE = re.compile("[a-z]{2}_[A-Z]{2}|[a-z]{3}_[A-Z][a-z]{3}")  # of a language, as mBART and as NLLB write it
APART = "\ue000"  # before pieces that texts are never split into, because the other language alone has them
SPACED = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
CC25 = (
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX "
    "ro_RO ru_RU si_LK tr_TR vi_VN zh_CN"
)
MORE = (
    "af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE ta_IN "
    "te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"
)

SPOKEN = {  # the languages of M2M100, by the settings' language_codes
    "m2m100": (
        "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr ht hu "
        "hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl ps pt "
        "ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu"
    ),
    "wmt21": "en ha is ja cs ru zh de",
}
NORMAL = 1  # the kind of a piece that texts are split into
MADE_UP = 8  # rows of an embedding behind the languages that no token has


def marian(folder: Path, settings: Raw) -> Tokenizer:
    """Pieces of source.spm by the numbers of vocab.json, with </s> behind a text; what the other language alone has is
    written, and never read."""
    if settings.get("separate_vocabs"):
        raise CheckpointError(f"{folder} has a vocabulary for each language", "use a model with one of both")
    numbers = json.loads(found(folder, "vocab.json").read_text(encoding="utf-8"))
    path = found(folder, "source.spm")
    read = parse(path.read_bytes(), str(path))
    scores = {piece.text: piece.score for piece in read.pieces}
    special = {text(settings[f"{name}_token"]) for name in ("unk", "eos", "pad")}
    codes = [word for word in numbers if word.startswith(">>") and word.endswith("<<")]
    kept = special | scores.keys() | {*codes}
    words = {word if word in kept else APART + word: i for word, i in numbers.items()}
    result = Tokenizer(_model(words, scores, read.kind, text(settings["unk_token"])))
    if read.charsmap:
        result.normalizer = normalizers.Precompiled(read.charsmap)
    result.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), SPACED])
    joined = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    result.decoder = decoders.Sequence([decoders.Replace(APART, ""), joined])
    result.add_tokens([AddedToken(code, normalized=False) for code in codes])
    result.post_processor = framed(result, settings, "$A {eos}", "$A $B {eos}")
    return result


def _model(words: dict[str, int], scores: dict[str, float], kind: int, unknown: str) -> Any:
    ordered = sorted(words, key=lambda word: words[word])
    if [words[word] for word in ordered] != [*range(len(words))]:
        raise CheckpointError("vocab.json leaves numbers out", "download the model again")
    if kind == UNIGRAM:
        scored = [(word, scores.get(word, 0.0)) for word in ordered]
        return models.Unigram(scored, unk_id=words[unknown], byte_fallback=False)
    known = {word: rank for rank, word in enumerate(scores) if word in words}
    return models.BPE(words, merges(known), unk_token=unknown, fuse_unk=True)


def m2m100(folder: Path, settings: Raw) -> Tokenizer:
    """Pieces of sentencepiece.bpe.model by the numbers of vocab.json, between a language's token and </s>.

    The languages follow the vocabulary. Pieces that it lacks have numbers behind the model's own, between marks
    (reading/lacking.py).
    """
    words: dict[str, int] = json.loads(found(folder, "vocab.json").read_text(encoding="utf-8"))
    spoken = SPOKEN.get(str(settings.get("language_codes") or "m2m100"))
    if spoken is None or sorted(words.values()) != [*range(len(words))]:
        raise CheckpointError(f"{folder} has numbers or languages of no known kind", "download the model again")
    path = found(folder, "sentencepiece.bpe.model")
    read = parse(path.read_bytes(), str(path))
    if read.kind == UNIGRAM:
        raise CheckpointError(f"{path} holds no byte pairs", "download the model again")
    ranks = {piece.text: i for i, piece in enumerate(read.pieces) if piece.kind in (NORMAL, OWN)}
    codes = [f"__{code}__" for code in spoken.split()]
    count = int(settings.get("num_madeup_words", MADE_UP))
    lacking = [piece for piece in ranks if piece not in words]
    more = [*codes, *(f"{APART}{i}" for i in range(count)), *between(lacking)]
    numbers = words | {word: i for i, word in enumerate(more, len(words))}
    unknown, both = text(settings["unk_token"]), read.bytes_too
    result = Tokenizer(models.BPE(numbers, merges(ranks), unk_token=unknown, fuse_unk=True, byte_fallback=both))
    if read.charsmap:
        result.normalizer = normalizers.Precompiled(read.charsmap)
    result.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), SPACED])
    result.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    code = f"__{settings.get('src_lang') or 'en'}__"
    result = whole(result, [piece for piece in read.pieces if piece.kind == OWN])
    return _in_language(result, settings | {"src_lang": code}, "{code} {text} {eos}")


def mbart(folder: Path, settings: Raw) -> Tokenizer:
    """mBART's pieces, with </s> and the code of the language behind a text."""
    result = _coded(folder, settings, CC25.split())
    result.normalizer = None  # type: ignore[assignment]  # nothing is changed
    result.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), SPACED])
    return _in_language(result, settings, "{text} {eos} {code}")


def mbart50(folder: Path, settings: Raw) -> Tokenizer:
    """mBART-50's: the code goes before a text, and </s> behind it."""
    result = _coded(folder, settings, [*CC25.split(), *MORE.split()])
    steps = [normalizers.Replace(Regex(r" {2,}"), " ")]
    result.normalizer = normalizers.Sequence(([result.normalizer] if result.normalizer else []) + steps)
    result.pre_tokenizer = SPACED
    return _in_language(result, settings, "{code} {text} {eos}")


def _coded(folder: Path, settings: Raw, codes: Sequence[str]) -> Tokenizer:
    """Pieces behind fairseq's tokens, and the codes of languages behind these."""
    front = [(text(settings[f"{name}_token"]), 0.0) for name in ("cls", "pad", "eos", "unk")]
    last = [(code, 0.0) for code in codes] + [(text(settings["mask_token"]), 0.0)]
    result = likeliest(folder, lambda scored: front + scored[3:] + last, 3)
    result.add_tokens([AddedToken(code, special=True, normalized=False) for code in codes])
    return result


def _in_language(tokenizer: Tokenizer, settings: Raw, template: str) -> Tokenizer:
    """A text between </s> and the code of the language that the settings say it is of, English unless they do."""
    code, eos = settings.get("src_lang") or "en_XX", text(settings["eos_token"])
    numbers = [(token, tokenizer.token_to_id(token)) for token in (code, eos)]
    if None in dict(numbers).values():
        raise CheckpointError(f"tokenizer_config.json names a language {code} (src_lang)", "name one that it knows")
    single, pair = (template.format(text=words, code=code, eos=eos).split() for words in ("$A", "$A $B"))
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=numbers)
    return tokenizer


# A tokenizer.json, which counts as far as the class of the library leaves it.
METASPACE: Raw = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
FEW_SPACES: Raw = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
BEHIND, BEFORE = ("$A", "{eos}", "{code}"), ("{code}", "$A", "{eos}")
FRAMES = {  # what a class puts around texts, in which language unless its settings say
    "MBartTokenizer": (BEHIND, "en_XX"),
    "MBart50Tokenizer": (BEFORE, "en_XX"),
    "NllbTokenizer": (BEFORE, "eng_Latn"),
}


def respoken(raw: Raw, called: str, settings: Raw) -> Raw:
    """A decoded tokenizer.json as a class of FRAMES has it: its pieces and its table of letters, and all else the
    class's own, with the code of the language that the settings name (src_lang)."""
    before = raw.get("normalizer") or {}
    steps = [step for step in before.get("normalizers", [before]) if step.get("type") == "Precompiled"]
    steps += [FEW_SPACES] if called == "MBart50Tokenizer" or steps else []
    split: Raw = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}
    if called == "NllbTokenizer":
        own = {"dropout": None, "fuse_unk": True, "byte_fallback": False, "unk_token": "<unk>"}
        raw = raw | {"model": raw["model"] | own}
    frame, usual = FRAMES[called]
    frame = BEHIND if called == "NllbTokenizer" and settings.get("legacy_behaviour") else frame
    plain = called == "MBartTokenizer"
    return raw | {
        "normalizer": {"type": "Sequence", "normalizers": steps} if steps and not plain else None,
        "pre_tokenizer": split if plain else METASPACE,
        "decoder": METASPACE,
        "post_processor": _template(raw, frame, settings.get("src_lang") or usual, settings),
    }


def _template(raw: Raw, frame: Sequence[str], code: str, settings: Raw) -> Raw:
    """One or two texts in a frame of which one token is the code."""
    eos = text(settings.get("eos_token") or "</s>")
    single = [part.format(code=code, eos=eos) for part in frame]
    pair = [each for part in single for each in (("$A", "$B") if part == "$A" else (part,))]
    said = {"single": [_placed(part) for part in single], "pair": [_placed(part) for part in pair]}
    numbers = {token: {"id": token, "ids": [number(raw, token)], "tokens": [token]} for token in (code, eos)}
    return {"type": "TemplateProcessing", "special_tokens": numbers} | said


def _placed(part: str) -> Raw:
    if part.startswith("$"):
        return {"Sequence": {"id": part[1:], "type_id": 0}}
    return {"SpecialToken": {"id": part, "type_id": 0}}


def number(raw: Raw, token: str) -> int:
    """Of a token that a tokenizer.json has; CheckpointError if it has none of this name."""
    vocabulary = raw["model"].get("vocab") or {}
    known = vocabulary if isinstance(vocabulary, dict) else {piece: i for i, (piece, _) in enumerate(vocabulary)}
    known = known | {each["content"]: each["id"] for each in raw.get("added_tokens") or []}
    if token not in known:
        raise CheckpointError(f"the tokenizer has no {token}, with which it frames texts", "name one as de_DE is one")
    return known[token]


KINDS: dict[str, Callable[[Path, Raw], Tokenizer]] = {
    "MarianTokenizer": marian, "MBartTokenizer": mbart, "MBart50Tokenizer": mbart50, "M2M100Tokenizer": m2m100,
}  # fmt: skip
