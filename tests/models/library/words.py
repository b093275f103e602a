"""Folders of tokenizers as people have them: of each class the files that it keeps, and what they may say of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from puma.models.files.pieces import parse
from puma.models.files.translating import SPOKEN
from tests.models import tiny

LINES = [
    tiny.SENTENCE,
    "The Cat's hat, 12,345 and 6: don't go!",
    "naïve café über alles",
    "a b c d e f g h i j k l m n o p",
]
LINES += ["q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 . , ; ' - _ ( )", tiny.SENTENCE.title(), "unhappily the cats sat"]
TEXTS = [
    "the cat sat", "The CAT sat.", "  spaced   out  ", "naïve café", "don't 12,345!", "日本 text", "a\ttab\nand a line",
    "the </s> cat", "[MASK] sat", "<mask> sat", "<extra_id_3> cat", "cat<|endoftext|>", "``quoted'' text", "🙂 hat",
    ">>de<< the cat", "tac eht", "__de__ cat", "a <mask> hat", "a [MASK] hat",
]  # fmt: skip
Write = Callable[[Path], None]


def wordpiece(folder: Path, special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")) -> None:
    """vocab.txt."""
    letters = sorted(
        {letter for line in LINES for letter in line.lower() if not letter.isspace()} | {"T", "C", "é", "e"}
    )
    words = [*special, *letters, *(f"##{letter}" for letter in letters)]
    words += ["the", "cat", "##s", "sat", "hat", "un", "##hap", "The"]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in dict.fromkeys(words)), encoding="utf-8")


def byte_pairs(*special: str) -> Write:
    """vocab.json and merges.txt, with these tokens."""

    def write(folder: Path) -> None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(LINES * 3, trainer)
        tokenizer.model.save(str(folder))

    return write


def pieces(kind: str, name: str, **settings: Any) -> Write:
    """A SentencePiece model."""

    def write(folder: Path) -> None:
        sentencepiece, found = pytest.importorskip("sentencepiece"), io.BytesIO()
        asked = {"vocab_size": 150, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2} | settings
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES * 20), model_writer=found, model_type=kind, **asked
        )
        (folder / name).write_bytes(found.getvalue())

    return write


@dataclass(frozen=True)
class Kind:
    """What writes the files of a class, the model it belongs to, and what tokenizer_config.json may say."""

    model_type: str
    write: Write
    settings: dict[str, Any] = field(default_factory=dict)


ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
GEMMA = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "eos_piece": "<eos>"}
GEMMA |= {"bos_piece": "<bos>", "user_defined_symbols": ["<mask>"]}
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
ALBERT = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}


def two_languages(folder: Path) -> None:
    """Two SentencePiece models, and a vocabulary of the pieces of both."""
    sentencepiece = pytest.importorskip("sentencepiece")
    numbers = {"</s>": 0, "<unk>": 1, ">>de<<": 2}
    for name, lines in (("source", LINES), ("target", [line[::-1] for line in LINES])):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines * 20), model_prefix=str(folder / name), model_type="unigram", vocab_size=120,
            hard_vocab_limit=False, num_threads=1, minloglevel=2, bos_id=-1,
        )  # fmt: skip
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        (folder / f"{name}.vocab").unlink()
        read = parse((folder / f"{name}.spm").read_bytes(), name)
        for piece in read.pieces:
            numbers.setdefault(piece.text, len(numbers))
    numbers["<pad>"] = len(numbers)
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")


def many_languages(folder: Path) -> None:
    """M2M100's: byte pairs of SentencePiece, which vocab.json numbers in another order."""
    pieces("bpe", "sentencepiece.bpe.model")(folder)
    read = parse((folder / "sentencepiece.bpe.model").read_bytes(), "it")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    found = special + sorted({piece.text for piece in read.pieces} - {*special})
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(found)}), encoding="utf-8")


def nllb(folder: Path) -> None:
    """tokenizer.json as NLLB's lies on the hub: the language behind a text, where the class has it before."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = ["<s>", "<pad>", "</s>", "<unk>", "eng_Latn", "deu_Latn", "<mask>"]
    tokenizer.train_from_iterator(LINES * 3, trainers.BpeTrainer(vocab_size=200, special_tokens=special))
    words = pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*words])
    numbers = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "eng_Latn")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s> eng_Latn", pair="$A $B </s> eng_Latn", special_tokens=numbers
    )
    tokenizer.save(str(folder / "tokenizer.json"))


CODES = [f"__{code}__" for code in SPOKEN["m2m100"].split()]
KINDS: dict[str, Kind] = {
    "marian": Kind("marian", two_languages, {"tokenizer_class": "MarianTokenizer", "source_lang": "en"}),
    "mbart": Kind("mbart", pieces("unigram", "sentencepiece.bpe.model"), {"tokenizer_class": "MBartTokenizer"}),
    "mbart50": Kind(
        "mbart", pieces("unigram", "sentencepiece.bpe.model"),
        {"tokenizer_class": "MBart50Tokenizer", "src_lang": "de_DE"},
    ),
    "m2m100": Kind(
        "m2m_100", many_languages,
        {"tokenizer_class": "M2M100Tokenizer", "src_lang": "de", "additional_special_tokens": CODES},
    ),
    "m2m100-plain": Kind("m2m_100", many_languages, {"language_codes": "wmt21"}),
    "nllb": Kind("m2m_100", nllb, {"tokenizer_class": "NllbTokenizer", "src_lang": "deu_Latn"}),
    "nllb-legacy": Kind("m2m_100", nllb, {"tokenizer_class": "NllbTokenizer", "legacy_behaviour": True}),
    "bart": Kind("bart", byte_pairs(*ROBERTA), {"tokenizer_class": "BartTokenizer"}),
    "bert": Kind("bert", wordpiece, {"tokenizer_class": "BertTokenizer"}),
    "bert-cased": Kind("bert", wordpiece, {"tokenizer_class": "BertTokenizer", "do_lower_case": False}),
    "distilbert": Kind("distilbert", wordpiece, {"tokenizer_class": "DistilBertTokenizer", "strip_accents": False}),
    "electra": Kind("electra", wordpiece, {"tokenizer_class": "ElectraTokenizer", "tokenize_chinese_chars": False}),
    "mpnet": Kind(
        "mpnet", lambda folder: wordpiece(folder, ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "[UNK]")),
        {"tokenizer_class": "MPNetTokenizer"},
    ),
    "gpt2": Kind("gpt2", byte_pairs("<|endoftext|>"), {"tokenizer_class": "GPT2Tokenizer"}),
    "gpt2-bos": Kind(
        "gpt2", byte_pairs("<|endoftext|>"), {"add_bos_token": True, "add_prefix_space": True, "model_max_length": 8}
    ),
    "opt": Kind(
        "opt", byte_pairs(*ROBERTA), {"add_bos_token": True, "bos_token": "</s>", "tokenizer_class": "GPT2Tokenizer"}
    ),
    "roberta": Kind("roberta", byte_pairs(*ROBERTA), {"tokenizer_class": "RobertaTokenizer"}),
    "roberta-space": Kind("roberta", byte_pairs(*ROBERTA), {"add_prefix_space": True}),
    "neox": Kind("gpt_neox", byte_pairs("<|endoftext|>", "<|padding|>"), {"tokenizer_class": "GPTNeoXTokenizer"}),
    "qwen2": Kind("qwen2", byte_pairs("<|endoftext|>"), {"tokenizer_class": "Qwen2Tokenizer"}),
    "llama": Kind(
        "llama", pieces("bpe", "tokenizer.model", byte_fallback=True, vocab_size=420),
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False},
    ),
    "llama-eos": Kind(
        "llama", pieces("bpe", "tokenizer.model", byte_fallback=True, vocab_size=420),
        {"tokenizer_class": "LlamaTokenizer", "add_eos_token": True, "legacy": False},
    ),
    "llama-unnamed": Kind("llama", pieces("bpe", "tokenizer.model", byte_fallback=True, vocab_size=420)),
    "llama-likeliest": Kind("llama", pieces("unigram", "tokenizer.model"), {"add_bos_token": True}),
    "mistral": Kind(
        "mistral", pieces("bpe", "tokenizer.model", byte_fallback=True, vocab_size=420),
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": False},
    ),
    "mistral-placeholders": Kind(
        "mistral", pieces("bpe", "tokenizer.model", control_symbols=["<c0>", "<c1>"], user_defined_symbols=["<u>"]),
        {"added_tokens_decoder": {
            "3": {"content": "[INST]", "special": True}, "4": {"content": "<c1>", "special": True}
        }},
    ),
    "phi3": Kind(
        "phi3", pieces("bpe", "tokenizer.model", byte_fallback=True, vocab_size=420),
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "pad_token": "<|endoftext|>"},
    ),
    "gemma": Kind(
        "gemma2", pieces("bpe", "tokenizer.model", byte_fallback=True, vocab_size=420, add_dummy_prefix=False, **GEMMA),
        {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True},
    ),
    "t5": Kind("t5", pieces("unigram", "spiece.model", **T5), {"tokenizer_class": "T5Tokenizer", "extra_ids": 100}),
    "xlm-roberta": Kind(
        "xlm-roberta", pieces("unigram", "sentencepiece.bpe.model", unk_id=0, bos_id=1, eos_id=2),
        {"tokenizer_class": "XLMRobertaTokenizer"},
    ),
    "albert": Kind("albert", pieces("unigram", "spiece.model", **ALBERT), {"tokenizer_class": "AlbertTokenizer"}),
    "albert-cased": Kind(
        "albert", pieces("unigram", "spiece.model", **ALBERT),
        {"tokenizer_class": "AlbertTokenizer", "do_lower_case": False, "keep_accents": True},
    ),
}  # fmt: skip


def write(folder: Path, name: str, **settings: Any) -> Path:
    """A folder with the files of a kind, and more settings."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = KINDS[name]
    kind.write(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": kind.model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps(kind.settings | settings))
    return folder


def _token(content: str, **flags: bool) -> dict[str, Any]:
    usual = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    return {"content": content} | usual | flags


Change = Callable[[dict[str, Any], dict[str, Any]], None]  # of tokenizer_config.json and tokenizer.json
CHANGES: dict[str, Change] = {
    "as saved": lambda config, words: None,
    "no config": lambda config, words: config.clear(),
    "lower": lambda config, words: config.update(do_lower_case=True),
    "not lower": lambda config, words: config.update(do_lower_case=False),
    "accents": lambda config, words: config.update(strip_accents=False),
    "no chinese": lambda config, words: config.update(tokenize_chinese_chars=False),
    "keep accents": lambda config, words: config.update(keep_accents=True),
    "space": lambda config, words: config.update(add_prefix_space=True),
    "no space": lambda config, words: config.update(add_prefix_space=False),
    "bos": lambda config, words: config.update(add_bos_token=True),
    "eos": lambda config, words: config.update(add_eos_token=True),
    "general": lambda config, words: config.update(tokenizer_class="PreTrainedTokenizerFast"),
    "llama": lambda config, words: config.update(tokenizer_class="LlamaTokenizer"),
    "bert": lambda config, words: config.update(tokenizer_class="BertTokenizer"),
    "gpt2": lambda config, words: config.update(tokenizer_class="GPT2TokenizerFast"),
    "legacy": lambda config, words: config.update(legacy=True),
    "language": lambda config, words: config.update(src_lang="fr_XX"),
    "split": lambda config, words: config.update(split_special_tokens=True),
    "one type": lambda config, words: config.update(model_input_names=["input_ids", "attention_mask"]),
    "named": lambda config, words: config.update(extra_special_tokens=["cat"]),
    "old named": lambda config, words: config.update(additional_special_tokens=["<new>"]),
    "other eos": lambda config, words: config.update(eos_token="the"),
    "decoder": lambda config, words: config.update(added_tokens_decoder={"5": _token("cat")}),
    "further": lambda config, words: config.update(
        added_tokens_decoder={str(t["id"]): {k: t[k] for k in t if k != "id"} for t in words["added_tokens"]}
        | {str(size(words)): _token("<new>", lstrip=True)}
    ),
    "other flags": lambda config, words: config.update(
        added_tokens_decoder={
            str(t["id"]): {k: t[k] for k in t if k != "id"} | {"lstrip": True} for t in words["added_tokens"]
        }
    ),
    "plain words": lambda config, words: words.update(normalizer=None),
    "no frame": lambda config, words: words.update(post_processor=None),
    "few added": lambda config, words: words.update(added_tokens=words["added_tokens"][:1]),
    "padded": lambda config, words: words.update(
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    ),
}


def size(words: dict[str, Any]) -> int:
    """The first number that no token has."""
    vocabulary = words["model"]["vocab"]
    whole = range(len(vocabulary)) if isinstance(vocabulary, list) else vocabulary.values()
    return max([*whole, *(token["id"] for token in words["added_tokens"])]) + 1


def _bare(folder: Path) -> dict[str, Any]:
    """What of a tokenizer.json changes look at, where a class writes none."""
    return {"added_tokens": [], "model": {"vocab": json.loads((folder / "vocab.json").read_text())}}


def contradicted(folder: Path, name: str, *changes: str) -> Path:
    """A folder as transformers saves it, and then changes of its files, one after the other."""
    from tests.models.library.compare import quiet

    write(folder / "old", name)
    with quiet() as transformers:
        transformers.AutoTokenizer.from_pretrained(folder / "old").save_pretrained(folder / "new")
    paths = [folder / "new" / name for name in ("tokenizer_config.json", "tokenizer.json")]
    contents = [json.loads(path.read_text()) if path.exists() else _bare(path.parent) for path in paths]
    for change in changes:
        CHANGES[change](*contents)
    for path, content in zip(paths, contents, strict=True):
        if not path.exists():  # what is changed in a file that a class does not write changes nothing
            continue
        path.write_text(json.dumps(content))
    (folder / "new" / "config.json").write_text((folder / "old" / "config.json").read_text())
    if not contents[0]:
        paths[0].unlink()
    return folder / "new"
