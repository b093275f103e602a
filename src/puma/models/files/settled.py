"""A tokenizer.json that says what its folder says: other files beside it change some of it, as the library has it.

tokenizer_config.json wins over tokenizer.json about case, accents and a space before the text, where its class of
tokenizers has such a setting, and about tokens that were added; what it says of tokens around a text does not count
(transformers 5, tokenization_utils_base). What cannot be brought together is refused. This file must not know models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from puma.errors import CheckpointError
from puma.models.files import translating
from puma.models.files.words import PIECES, PLAIN, SPACE, SPECIALS, made, scheme_of, text, usual

Raw = dict[str, Any]
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ALIASES = {
    "DistilBertTokenizer": "BertTokenizer", "ElectraTokenizer": "BertTokenizer", "BartTokenizer": "RobertaTokenizer",
}  # fmt: skip
GENERAL = ("", "PreTrainedTokenizer", "TokenizersBackend", "PythonBackend")
USUAL = {  # by model_type, where tokenizer_config.json names no class of its own
    "albert": "AlbertTokenizer", "bert": "BertTokenizer", "distilbert": "BertTokenizer", "electra": "BertTokenizer",
    "gemma2": "GemmaTokenizer", "gemma3": "GemmaTokenizer", "gemma3_text": "GemmaTokenizer", "gpt2": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizer", "opt": "GPT2Tokenizer",
    "gte": "XLMRobertaTokenizer", "mpnet": "MPNetTokenizer", "nomic_bert": "BertTokenizer",
    "qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer", "roberta": "RobertaTokenizer",
    "bart": "RobertaTokenizer", "m2m_100": "M2M100Tokenizer", "marian": "MarianTokenizer",
    "mbart": "MBartTokenizer", "whisper": "WhisperTokenizer", "t5": "T5Tokenizer", "xlm-roberta": "XLMRobertaTokenizer",
}  # fmt: skip
TAKEN = ("mistral", "phi3")  # of which the library takes a file as it is, whatever class is named
HOLDS = {  # the kind of model of each class
    "BertTokenizer": "WordPiece", "GPT2Tokenizer": "BPE", "GPTNeoXTokenizer": "BPE", "Qwen2Tokenizer": "BPE",
    "RobertaTokenizer": "BPE", "LlamaTokenizer": "BPE", "GemmaTokenizer": "BPE", "T5Tokenizer": "Unigram",
    "XLMRobertaTokenizer": "Unigram", "AlbertTokenizer": "Unigram", "MPNetTokenizer": "WordPiece",
    "MBartTokenizer": "Unigram", "MBart50Tokenizer": "Unigram", "NllbTokenizer": "BPE",
}  # fmt: skip
FRAMED = {  # what a class puts around texts, whatever the file says
    "BertTokenizer": ("cls_token", "sep_token"), "RobertaTokenizer": ("cls_token", "sep_token"),
    "XLMRobertaTokenizer": ("bos_token", "eos_token"), "AlbertTokenizer": ("cls_token", "sep_token"),
    "T5Tokenizer": ("eos_token",), "MPNetTokenizer": ("cls_token", "sep_token"),
}  # fmt: skip
PAIRED = {  # the step that puts tokens around texts in a class, and how many around a pair
    "BertTokenizer": ("BertProcessing", 3), "RobertaTokenizer": ("RobertaProcessing", 4),
    "MPNetTokenizer": ("RobertaProcessing", 4),
}  # fmt: skip
MASKED: dict[str, Raw] = {  # how a class reads its mask's name where no list of added tokens says it
    "MPNetTokenizer": {"lstrip": True}, "MBartTokenizer": {"lstrip": True}, "MBart50Tokenizer": {"lstrip": True},
    "NllbTokenizer": {"lstrip": True, "normalized": True},
}  # fmt: skip
SPACED = ("GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "RobertaTokenizer")


def content(folder: Path, model_type: str) -> bytes:
    """The tokenizer.json that the files of a folder amount to; CheckpointError if they contradict each other."""
    settings, path = settings_in(folder), folder / "tokenizer.json"
    named = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    called = ALIASES.get(named, named)
    if settings.get("split_special_tokens"):
        raise CheckpointError(f"{folder} splits special tokens (split_special_tokens)", "set it to false")
    if not path.is_file():
        called = USUAL.get(model_type, "") if called in GENERAL or model_type in TAKEN else called
        called = called or (PLAIN if (folder / PIECES[0]).is_file() else "")
        result = made(folder, called, settings, translating.KINDS)
        added = tokens(_masked(called, usual(folder, called, settings) | settings))
        return written(result, _rowless(result, added) if called == "M2M100Tokenizer" else added)
    before = path.read_bytes()
    raw = _object(before, path)
    called = _called(folder, settings, model_type, raw)
    after = _mended(raw, called, settings)
    try:
        if called in HOLDS:
            after, settings = _anew(after, called, settings, _lists(folder))
        added = [token for token in tokens(settings) if not _known(token, after)]
    except (TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{folder} describes added tokens in no known way: {error}", HINT) from error
    if after == raw and not added:
        return before
    return written(Tokenizer.from_str(json.dumps(after)), added)


def _anew(raw: Raw, called: str, settings: Raw, listed: bool) -> tuple[Raw, Raw]:
    """A tokenizer.json and settings of a class that is built anew from the vocabulary.

    It has its own special tokens where settings name none, and where settings list added tokens, no others of the file.
    """
    settings = SPECIALS.get(called, {}) | settings
    if not {"extra_special_tokens", "additional_special_tokens"} & settings.keys():
        settings |= {"extra_special_tokens": _further(raw, called, settings)}
    settings = _masked(called, settings)
    if listed:
        wanted = {token.content for _, token in tokens(settings)}
        kept = [token for token in raw.get("added_tokens") or [] if token["content"] in wanted]
        raw = raw | {"added_tokens": kept}
    return raw, settings


def _masked(called: str, settings: Raw) -> Raw:
    mask = settings.get("mask_token")
    own = MASKED.get(called) if isinstance(mask, str) else None
    return settings if own is None else settings | {"mask_token": {"content": mask} | own}


def _further(raw: Raw, called: str, settings: Raw) -> list[str]:
    """The special tokens without a role that a class has; languages as far as the vocabulary knows them."""
    if called == "T5Tokenizer":
        return [f"<extra_id_{i}>" for i in range(settings.get("extra_ids", 100))]
    if called not in translating.FRAMES:
        return []
    vocabulary = raw["model"]["vocab"]
    pieces = vocabulary if isinstance(vocabulary, dict) else [piece for piece, _ in vocabulary]
    return [piece for piece in pieces if translating.CODE.fullmatch(piece)]


def _lists(folder: Path) -> bool:
    """Whether tokenizer_config.json has a list of added tokens, so that none but these count."""
    path = folder / "tokenizer_config.json"
    return path.is_file() and "added_tokens_decoder" in _object(path.read_bytes(), path)


HINT = "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) in transformers writes them anew"


def written(tokenizer: Tokenizer, added: Iterable[tuple[int | None, AddedToken]]) -> bytes:
    """With these tokens added to it, which are in the order of their numbers where these are said."""
    for number, token in added:
        if number is not None and tokenizer.token_to_id(token.content) not in (None, number):
            what = f"{token.content} is token {tokenizer.token_to_id(token.content)}, and {number} elsewhere"
            raise CheckpointError(f"the tokenizer's files contradict each other: {what}", HINT)
        tokenizer.add_tokens([token])
        if number is not None and tokenizer.token_to_id(token.content) != number:
            what = (
                f"{token.content} is said to be token {number}, which would be {tokenizer.token_to_id(token.content)}"
            )
            raise CheckpointError(f"the tokenizer's files contradict each other: {what}", HINT)
    return tokenizer.to_str().encode()


def _rowless(
    tokenizer: Tokenizer, added: Iterable[tuple[int | None, AddedToken]]
) -> Iterator[tuple[int | None, AddedToken]]:
    """The same tokens; CheckpointError for one that is not there yet: the library numbers it right behind the
    languages, where this tokenizer has the rows that no token has."""
    for number, token in added:
        if tokenizer.token_to_id(token.content) is None:
            what = f"the settings add the token {token.content}, which the vocabulary of this M2M100 lacks"
            raise CheckpointError(what, "take it out of tokenizer_config.json")
        yield number, token


def settings_in(folder: Path) -> Raw:
    """tokenizer_config.json over special_tokens_map.json, and added_tokens.json in its way of saying it."""
    config, old, more = (
        _object((folder / name).read_bytes(), folder / name) if (folder / name).is_file() else {}
        for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    )
    if "added_tokens_decoder" in config:
        return config
    found = config | old
    special = {text(found[name]) for name in NAMED if found.get(name)}
    flags = {token: {"special": token in special, "normalized": token not in special} for token in more}
    return found | {"added_tokens_decoder": {i: {"content": token} | flags[token] for token, i in more.items()}}


def tokens(settings: Raw) -> Iterator[tuple[int | None, AddedToken]]:
    """The tokens that settings add, with their numbers where these are said."""
    decoder = {int(number): token for number, token in (settings.get("added_tokens_decoder") or {}).items()}
    known = set[str]()
    for number, token in sorted(decoder.items()):
        known.add(token["content"])
        yield number, AddedToken(token["content"], **{name: token[name] for name in FLAGS if name in token})
    more = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    more = list(more.values()) if isinstance(more, dict) else more
    own = [name for name in settings if name.endswith("_token") and name not in NAMED]  # such as image_token
    roles = [settings[name] for name in (*NAMED, *own) if isinstance(settings.get(name), str | dict)]
    for token in [token for token in roles if token] + more:
        if text(token) not in known:
            known.add(text(token))
            flags = {name: token[name] for name in FLAGS[:4] if name in token} if isinstance(token, dict) else {}
            yield None, AddedToken(text(token), special=True, **flags)


def _known(token: tuple[int | None, AddedToken], raw: Raw) -> bool:
    """Whether a tokenizer.json says the same of a token, or if nothing else is said of it, that it is one."""
    number, wanted = token
    for each in raw.get("added_tokens") or []:
        if each["content"] == wanted.content:
            return number is None or (
                each["id"] == number and all(each[name] == getattr(wanted, name) for name in FLAGS)
            )
    return False


def _called(folder: Path, settings: Raw, model_type: str, raw: Raw) -> str:
    """The class that the library would make of a tokenizer.json; nothing if it takes the file as it is.

    CheckpointError if tokenizer_config.json names one that makes something else of it.
    """
    named = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    if model_type in TAKEN:
        return ""
    called = ALIASES.get(named, named) if model_type != "qwen2" else USUAL["qwen2"]
    if not called:
        called = USUAL.get(model_type, "")
    model, writes_bytes = raw.get("model") or {}, '"ByteLevel"' in json.dumps(raw.get("pre_tokenizer"))
    kind = model.get("type") or ("BPE" if "merges" in model else "Unigram" if "unk_id" in model else "WordPiece")
    fits = HOLDS.get(called, kind) == kind and (called not in SPACED or writes_bytes)
    if called in ("LlamaTokenizer", "GemmaTokenizer") and writes_bytes:
        return "" if called == "LlamaTokenizer" else _unlike(folder, called)
    if not fits:
        return _unlike(folder, called) if named else ""
    return called


def _unlike(folder: Path, called: str) -> str:
    raise CheckpointError(f"{folder} names a {called}, and its tokenizer.json is none", HINT)


def _mended(raw: Raw, called: str, settings: Raw) -> Raw:
    """What settings, and the defaults of a class, change of a tokenizer.json."""
    if called in ("BertTokenizer", "MPNetTokenizer"):
        normalizer = {"type": "BertNormalizer", "clean_text": True, "strip_accents": settings.get("strip_accents")}
        normalizer |= {"handle_chinese_chars": settings.get("tokenize_chinese_chars", True)}
        raw = raw | {"normalizer": normalizer | {"lowercase": settings.get("do_lower_case", True)}}
    if called == "AlbertTokenizer":
        raw = raw | {"normalizer": _albert(raw.get("normalizer"), settings)}
    if called in SPACED:
        space = bool(settings.get("add_prefix_space"))
        raw = raw | {"pre_tokenizer": _spaced(raw.get("pre_tokenizer"), space)}
    if called in ("XLMRobertaTokenizer", "AlbertTokenizer"):
        scheme = "always" if settings.get("add_prefix_space", True) else "never"
        raw = raw | {step: _schemed(raw.get(step), scheme) for step in ("pre_tokenizer", "decoder")}
    if called in ("LlamaTokenizer", "GemmaTokenizer"):
        own = {"dropout": None, "fuse_unk": True, "byte_fallback": True}
        own |= {"unk_token": None} if called == "LlamaTokenizer" else {}
        raw = raw | _of_pairs(called, settings) | {"model": raw["model"] | own}
    if called in translating.FRAMES:
        raw = translating.respoken(raw, called, settings)
    framed = json.dumps(raw.get("post_processor"))
    for name in FRAMED.get(called, ()):
        token = text(settings.get(name) or SPECIALS[called][name])
        if json.dumps(token) not in framed:
            raise CheckpointError(f"tokenizer.json does not put {token} to texts, and a {called} does", HINT)
    raw = _framed_alike(raw, called, settings)
    names = settings.get("model_input_names")
    if names is not None and "token_type_ids" not in names:
        raw = raw | {"post_processor": _of_one_type(raw.get("post_processor"))}
    return raw


def _framed_alike(raw: Raw, called: str, settings: Raw) -> Raw:
    """With the tokens around a pair that a class of PAIRED puts there, where the file has them otherwise."""
    kind, count = PAIRED.get(called, ("", 0))
    if not kind or _marks(raw.get("post_processor")) == count:
        return raw
    sep, cls = (text(settings.get(name) or SPECIALS[called][name]) for name in ("sep_token", "cls_token"))
    step = {"type": kind, "sep": [sep, translating.number(raw, sep)], "cls": [cls, translating.number(raw, cls)]}
    more = {"trim_offsets": True, "add_prefix_space": False} if kind == "RobertaProcessing" else {}
    return raw | {"post_processor": step | more}


def _marks(step: Any) -> int:
    """How many tokens a step puts around a pair of texts."""
    kind = step.get("type") if isinstance(step, dict) else None
    if kind == "Sequence":
        return sum(map(_marks, step["processors"]))
    if kind == "TemplateProcessing":
        return sum("SpecialToken" in part for part in step["pair"])
    return {"BertProcessing": 3, "RobertaProcessing": 4}.get(str(kind), 0)


def _of_pairs(called: str, settings: Raw) -> Raw:
    """How texts are split, and tokens joined, in the classes that take byte pairs of SentencePiece."""
    joined: list[Raw] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    joined += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if called == "GemmaTokenizer":
        space = {"String": " "}
        split = {"type": "Split", "pattern": space, "behavior": "MergedWithPrevious", "invert": False}
        normalizer: Any = {"type": "Replace", "pattern": space, "content": SPACE}
    else:
        scheme = scheme_of(settings)
        split = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
        normalizer = None
        joined += [] if scheme == "never" else [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    return {"normalizer": normalizer, "pre_tokenizer": split, "decoder": {"type": "Sequence", "decoders": joined}}


def _albert(before: Any, settings: Raw) -> Raw:
    """ALBERT's steps before a text is split; the table of letters is the file's."""
    steps = before.get("normalizers", [before]) if isinstance(before, dict) else []
    quotes = [{"type": "Replace", "pattern": {"String": mark}, "content": '"'} for mark in ("``", "''")]
    accents = [] if settings.get("keep_accents") else [{"type": "NFKD"}, {"type": "StripAccents"}]
    small = [{"type": "Lowercase"}] if settings.get("do_lower_case", True) else []
    table = [step for step in steps if step.get("type") == "Precompiled"]
    return {"type": "Sequence", "normalizers": quotes + accents + small + table}


def _spaced(step: Any, space: bool) -> Any:
    """Every step that writes bytes, with a space before the text or without."""
    if isinstance(step, list):
        return [_spaced(each, space) for each in step]
    if not isinstance(step, dict):
        return step
    inner = {name: _spaced(each, space) for name, each in step.items()}
    return inner | {"add_prefix_space": space} if step.get("type") == "ByteLevel" else inner


def _schemed(step: Any, scheme: str) -> Any:
    """Every step that writes spaces, with one before each word or none."""
    if isinstance(step, list):
        return [_schemed(each, scheme) for each in step]
    if isinstance(step, dict) and step.get("type") == "Metaspace":
        kept = {name: value for name, value in step.items() if name not in ("add_prefix_space", "str_rep")}
        return kept | {"prepend_scheme": scheme}
    return {name: _schemed(each, scheme) for name, each in step.items()} if isinstance(step, dict) else step


def _of_one_type(step: Any) -> Any:
    """The tokens around texts, all of one type."""
    if isinstance(step, dict) and step.get("type") == "BertProcessing":
        (sep, sep_id), (cls, cls_id) = step["sep"], step["cls"]
        names = {"cls": cls, "sep": sep}
        parts = {"single": ("cls", "A", "sep"), "pair": ("cls", "A", "sep", "B", "sep")}
        ids = {
            token: {"id": token, "ids": [number], "tokens": [token]} for token, number in ((cls, cls_id), (sep, sep_id))
        }
        said = {
            kind: [
                {"SpecialToken": {"id": names[part], "type_id": 0}}
                if part in names
                else {"Sequence": {"id": part, "type_id": 0}}
                for part in each
            ]
            for kind, each in parts.items()
        }
        return {"type": "TemplateProcessing", "special_tokens": ids} | said
    if isinstance(step, list):
        return [_of_one_type(each) for each in step]
    if isinstance(step, dict):
        return {name: 0 if name == "type_id" else _of_one_type(each) for name, each in step.items()}
    return step


def _object(found: bytes, path: Path) -> Raw:
    try:
        raw = json.loads(found)
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} holds no JSON object", "download the model again")
    return raw
