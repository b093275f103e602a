"""A tokenizer.json for folders that lack one: from vocab.txt, from vocab.json and merges.txt, or from SentencePiece.

Each way is that of a class of tokenizers, with the defaults that it has in the library (transformers 5). This file
must not know models: it is told which class a folder means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from puma.errors import CheckpointError
from puma.models.files.pieces import CONTROL, OWN, UNIGRAM, Pieces, merges, parse

Raw = dict[str, Any]
SPLIT = (  # of Qwen's
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPACE = "▁"
PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
END = "<|endoftext|>"
PLAIN = "TokenizersBackend"  # what the library calls a tokenizer that is its file's and no class's
SPECIALS: dict[str, Raw] = {
    "BertTokenizer": {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
                      "mask_token": "[MASK]"},
    "RobertaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>",
                         "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
    "GPT2Tokenizer": {"unk_token": END, "bos_token": END, "eos_token": END},
    "GPTNeoXTokenizer": {"unk_token": END, "bos_token": END, "eos_token": END, "pad_token": "<|padding|>"},
    "Qwen2Tokenizer": {"unk_token": END, "eos_token": END, "pad_token": END},
    "LlamaTokenizer": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "GemmaTokenizer": {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
                       "mask_token": "<mask>"},
    "T5Tokenizer": {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    "AlbertTokenizer": {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "sep_token": "[SEP]",
                        "pad_token": "<pad>", "cls_token": "[CLS]", "mask_token": "[MASK]"},
}  # fmt: skip
SPECIALS["MPNetTokenizer"] = SPECIALS["RobertaTokenizer"] | {
    "unk_token": "[UNK]", "mask_token": {"content": "<mask>", "lstrip": True},
}  # fmt: skip
SPECIALS["XLMRobertaTokenizer"] = SPECIALS["RobertaTokenizer"]
SPECIALS["MBartTokenizer"] = SPECIALS["RobertaTokenizer"]
SPECIALS["MBart50Tokenizer"] = {
    name: token for name, token in SPECIALS["RobertaTokenizer"].items() if name[:3] != "bos"
}
SPECIALS["M2M100Tokenizer"] = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>",
                               "pad_token": "<pad>"}  # fmt: skip
SPECIALS["NllbTokenizer"] = SPECIALS["RobertaTokenizer"]
SPECIALS["MarianTokenizer"] = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
SPECIALS["WhisperTokenizer"] = {"unk_token": END, "bos_token": END, "eos_token": END}


Make = Callable[[Path, Raw], Tokenizer]


def made(folder: Path, called: str, settings: Raw, more: Mapping[str, Make]) -> Tokenizer:
    """The tokenizer of a class, one of these or `more`, from the files that it keeps; special tokens are added by
    others.

    CheckpointError if the class is none of these, or its files are not there or cannot be read.
    """
    kinds = {**KINDS, **more}
    if called not in kinds:
        hint = "write one: AutoTokenizer.from_pretrained(folder).save_pretrained(folder) in transformers"
        raise CheckpointError(f"{folder} holds no tokenizer.json, and {called or 'its class'} is not known", hint)
    try:
        return kinds[called](folder, SPECIALS.get(called, {}) | settings)
    except CheckpointError:
        raise
    except Exception as error:  # the library raises plain Exception
        what = f"the tokenizer in {folder} cannot be made out of its files: {error}"
        raise CheckpointError(what, "download the model again") from error


def usual(folder: Path, called: str, settings: Raw) -> Raw:
    """The special tokens that a class has where settings name none; of a file that no class reads, those it names."""
    if called == PLAIN:
        path = found(folder, PIECES[0])
        return dict(parse(path.read_bytes(), str(path)).marks)
    gaps = [f"<extra_id_{i}>" for i in range(settings.get("extra_ids", 100))] if called == "T5Tokenizer" else []
    return SPECIALS.get(called, {}) | ({"extra_special_tokens": gaps} if gaps else {})


def bert(folder: Path, settings: Raw) -> Tokenizer:
    """WordPiece."""
    lines = found(folder, "vocab.txt").read_text(encoding="utf-8").split("\n")
    words = {line: i for i, line in enumerate(lines[:-1] if lines[-1] == "" else lines)}
    result = Tokenizer(models.WordPiece(words, unk_token=text(settings["unk_token"])))
    result.normalizer = lowered(settings)
    result.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    result.decoder = decoders.WordPiece(prefix="##")
    result.post_processor = framed(result, settings, "{cls} $A {sep}", "{cls} $A {sep} $B:1 {sep}:1")
    return result


def mpnet(folder: Path, settings: Raw) -> Tokenizer:
    """WordPiece between <s> and </s>."""
    result = bert(folder, settings)
    sep, cls = (numbered(result, settings, name) for name in ("sep_token", "cls_token"))
    result.post_processor = processors.RobertaProcessing(sep, cls, True, False)
    return result


def lowered(settings: Raw) -> normalizers.Normalizer:
    """What a BERT tokenizer's settings do to a text first."""
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )


def bytes_in_pairs(folder: Path, settings: Raw) -> Tokenizer:
    """Byte pairs of bytes, as GPT-2 has them."""
    lines = found(folder, "merges.txt").read_text(encoding="utf-8").split("\n")
    split = [line.split() for line in lines if not line.startswith("#version")]
    pairs = [(pair[0], pair[1]) for pair in split if len(pair) == 2]
    words = json.loads(found(folder, "vocab.json").read_text(encoding="utf-8"))
    result = Tokenizer(models.BPE(words, pairs, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False))
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings.get("add_prefix_space") or False)
    result.decoder = decoders.ByteLevel()
    return flagged(result, settings)


def roberta(folder: Path, settings: Raw) -> Tokenizer:
    """The same between <s> and </s>."""
    result, space = bytes_in_pairs(folder, settings), settings.get("add_prefix_space") or False
    sep, cls = (numbered(result, settings, name) for name in ("sep_token", "cls_token"))
    result.post_processor = processors.RobertaProcessing(sep, cls, settings.get("trim_offsets", True), space)
    return result


def neox(folder: Path, settings: Raw) -> Tokenizer:
    """The same of composed letters."""
    result = bytes_in_pairs(folder, settings)
    result.normalizer = normalizers.NFC()
    return result


def qwen2(folder: Path, settings: Raw) -> Tokenizer:
    """The same, split in another way."""
    result = neox(folder, settings)
    space = settings.get("add_prefix_space") or False
    result.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False),
    ])  # fmt: skip
    return result


def llama(folder: Path, settings: Raw) -> Tokenizer:
    """Byte pairs of SentencePiece, and bytes for what they lack."""
    result, scheme = in_pairs(folder), scheme_of(settings)
    result.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=False)
    ending = [] if scheme == "never" else [decoders.Strip(content=" ", left=1)]
    result.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *ending]
    )
    return flagged(result, settings)


def scheme_of(settings: Raw) -> str:
    """Where a LLaMA tokenizer puts a space before words: at the beginning, or behind special tokens, too."""
    space = settings.get("add_prefix_space")
    return "never" if space is not None and not space else "always" if settings.get("legacy") else "first"


def gemma(folder: Path, settings: Raw) -> Tokenizer:
    """The same without a space before the text."""
    result = in_pairs(folder, text(settings["unk_token"]))
    result.normalizer = normalizers.Replace(" ", SPACE)
    result.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    result.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return flagged(result, settings)


def plain(folder: Path, settings: Raw) -> Tokenizer:
    """Whatever tokenizer.model says; nothing is put before a text, whatever the model was trained with."""
    path = found(folder, PIECES[0])
    read = parse(path.read_bytes(), str(path))
    if read.kind == UNIGRAM:
        scored = [(piece.text, piece.score) for piece in read.pieces]
        result = Tokenizer(models.Unigram(scored, unk_id=read.unknown, byte_fallback=read.bytes_too))
    else:
        result = _renumbered(read, settings)
    table = [normalizers.Precompiled(read.charsmap)] if read.charsmap else []
    result.normalizer = normalizers.Sequence([*table, normalizers.Replace(" ", SPACE)])
    spaces = decoders.Replace(SPACE, " ")
    result.decoder = decoders.Sequence(
        [spaces, decoders.ByteFallback(), decoders.Fuse()] if read.bytes_too else [spaces]
    )
    return flagged(whole(result, read.pieces), dict(read.marks) | settings)


def _renumbered(read: Pieces, settings: Raw) -> Tokenizer:
    """Byte pairs, in which settings call some tokens otherwise."""
    words = {piece.text: i for i, piece in enumerate(read.pieces)}
    pairs = merges(words)
    at = {i: word for word, i in words.items()}
    for number, token in (settings.get("added_tokens_decoder") or {}).items():
        now, new = at.get(int(number)), text(token)
        if now is not None and now != new and new not in words:
            words[new] = words.pop(now)
            at[int(number)] = new
    unknown = read.marks.get("unk_token", "<unk>")
    return Tokenizer(models.BPE(words, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=read.bytes_too))


def t5(folder: Path, settings: Raw) -> Tokenizer:
    """The likeliest pieces of SentencePiece, and tokens for gaps."""
    more = [(f"<extra_id_{i}>", 0.0) for i in range(settings.get("extra_ids", 100) - 1, -1, -1)]
    result = likeliest(folder, lambda scored: scored + more, 2)
    result.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", result.token_to_id("</s>"))]
    )
    return result


def xlm_roberta(folder: Path, settings: Raw) -> Tokenizer:
    """The same, with fairseq's tokens in front."""
    front = [(text(settings[f"{name}_token"]), 0.0) for name in ("bos", "pad", "eos", "unk")]
    last = [(text(settings["mask_token"]), 0.0)]
    result = likeliest(folder, lambda scored: front + scored[3:] + last, 3)
    pair = "{bos} $A {eos} {eos} $B {eos}"
    result.post_processor = framed(result, settings, "{bos} $A {eos}", pair)
    return result


def albert(folder: Path, settings: Raw) -> Tokenizer:
    """The same in lower case, unless settings say otherwise."""
    result = likeliest(folder, lambda scored: scored, 1)
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    steps += [] if settings.get("keep_accents") else [normalizers.NFKD(), normalizers.StripAccents()]
    steps += [normalizers.Lowercase()] if settings.get("do_lower_case", True) else []
    result.normalizer = normalizers.Sequence(steps + ([result.normalizer] if result.normalizer else []))
    result.post_processor = framed(result, settings, "{cls} $A {sep}", "{cls} $A {sep} $B:1 {sep}:1")
    return result


KINDS: dict[str, Make] = {
    "BertTokenizer": bert, "RobertaTokenizer": roberta, "GPT2Tokenizer": bytes_in_pairs, "GPTNeoXTokenizer": neox,
    "Qwen2Tokenizer": qwen2, "LlamaTokenizer": llama, "GemmaTokenizer": gemma, "T5Tokenizer": t5,
    "XLMRobertaTokenizer": xlm_roberta, "AlbertTokenizer": albert, "MPNetTokenizer": mpnet, PLAIN: plain,
    "WhisperTokenizer": bytes_in_pairs,
}  # fmt: skip


def in_pairs(folder: Path, unknown: str | None = None) -> Tokenizer:
    """Byte pairs of a SentencePiece model; its special pieces, and those that were asked for, are whole."""
    path = found(folder, *PIECES)
    pieces = parse(path.read_bytes(), str(path)).pieces
    words = {piece.text: i for i, piece in enumerate(pieces)}
    result = Tokenizer(models.BPE(words, merges(words), unk_token=unknown, fuse_unk=True, byte_fallback=True))
    return whole(result, pieces)


def likeliest(folder: Path, arranged: Callable[[list[tuple[str, float]]], Any], unknown: int) -> Tokenizer:
    """Pieces of a SentencePiece model by their chances, between spaces."""
    path = found(folder, *PIECES)
    read = parse(path.read_bytes(), str(path))
    scored = arranged([(piece.text, piece.score) for piece in read.pieces])
    result = Tokenizer(models.Unigram(scored, unk_id=unknown, byte_fallback=False))
    if read.charsmap:
        result.normalizer = normalizers.Precompiled(read.charsmap)
    space = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    result.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space])
    result.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    return whole(result, read.pieces)


def whole(tokenizer: Tokenizer, pieces: list[Any]) -> Tokenizer:
    """With the pieces that no text is split into otherwise."""
    kept = [piece for piece in pieces if piece.kind in (CONTROL, OWN)]
    tokenizer.add_tokens([AddedToken(p.text, normalized=False, special=p.kind == CONTROL) for p in kept])
    return tokenizer


def flagged(tokenizer: Tokenizer, settings: Raw) -> Tokenizer:
    """With the tokens around a text that settings ask for by a flag."""
    wanted = {
        kind: bool(settings.get(f"add_{kind}_token")) and settings.get(f"{kind}_token") for kind in ("bos", "eos")
    }
    bos, eos = ("{bos} " if wanted["bos"] else ""), (" {eos}" if wanted["eos"] else "")
    second = (" {bos}:1" if wanted["bos"] else "") + " $B:1" + (" {eos}:1" if wanted["eos"] else "")
    tokenizer.post_processor = framed(tokenizer, settings, f"{bos}$A{eos}", f"{bos}$A{eos}{second}")
    return tokenizer


def framed(tokenizer: Tokenizer, settings: Raw, single: str, pair: str) -> processors.PostProcessor:
    """A template in which {cls} stands for settings' cls_token, and so on."""
    used = [name for name in ("bos", "eos", "cls", "sep") if f"{{{name}}}" in pair]
    known = dict(numbered(tokenizer, settings, f"{name}_token") for name in used)
    for name in used:
        token = text(settings[f"{name}_token"])
        single, pair = single.replace(f"{{{name}}}", token), pair.replace(f"{{{name}}}", token)
    return processors.TemplateProcessing(single=single.split(), pair=pair.split(), special_tokens=list(known.items()))


def numbered(tokenizer: Tokenizer, settings: Raw, name: str) -> tuple[str, int]:
    """A special token and its number; CheckpointError if the vocabulary lacks it."""
    token = text(settings[name])
    number = tokenizer.token_to_id(token)
    if number is None:
        raise CheckpointError(f"the tokenizer has no {token}, its {name}", "download the model again")
    return token, number


def found(folder: Path, *names: str) -> Path:
    """The first of these files that there is."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    hint = "download the model again, with the files of its tokenizer"
    raise CheckpointError(f"{folder} holds neither tokenizer.json nor {' or '.join(names)}", hint)


def text(token: Any) -> str:
    """A token as text; some settings hold an object that has it."""
    return token.get("content", "") if isinstance(token, dict) else str(token)
