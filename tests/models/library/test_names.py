"""Whatever a file calls its tensors, and whatever of them it shares: we read what transformers reads, or refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from puma.errors import CheckpointError, InputError, TensorError
from puma.models.checkpoint import load
from puma.models.text import encode
from puma.reference.plain_model import PlainModel
from tests.models import tiny, zoo
from tests.models.library import compare, names
from tests.models.library.names import Renamed

FAULTS = [  # each was wrong in silence, or refused, once
    ("llama", "LlamaForCausalLM", "module"),
    ("gemma3_text", "Gemma3ForCausalLM", "compiled"),
    ("mistral", "MistralForCausalLM", "within"),
    ("opt", "OPTForCausalLM", "language_model"),
    ("gpt2", "GPT2LMHeadModel", "head alone"),
    ("gpt2", "GPT2LMHeadModel", "untied"),
    ("gpt2", "GPT2LMHeadModel", "stray"),
    ("bert", "BertForMaskedLM", "half untied"),
    ("electra", "ElectraForMaskedLM", "untied"),
    ("t5", "T5ForConditionalGeneration", "stray"),
    ("phi3", "Phi3ForCausalLM", "further"),
    ("modernbert", "ModernBertForMaskedLM", "further"),
    ("qwen3_5_text", "Qwen3_5ForCausalLM", "further"),
    ("gpt_oss", "GptOssForCausalLM", "further"),
    ("qwen3", "Qwen3Model", "headed"),
    ("marian", "MarianMTModel", "module"),
    ("mbart", "MBartForConditionalGeneration", "compiled"),
]


@pytest.mark.parametrize(("model_type", "architecture", "change"), FAULTS)
def test_what_people_have(model_type: str, architecture: str, change: str, tmp_path: Path) -> None:
    asked = Renamed(names.tie(model_type, architecture, None), (change,))
    assert compare.renamed(asked, tmp_path / "it") == compare.EQUAL


@pytest.mark.parametrize("seed", range(15))
def test_names_changed_together(seed: int, tmp_path: Path) -> None:
    compare.renamed(names.drawn(seed), tmp_path / "it")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_change_of_every_class(tmp_path: Path) -> None:
    """None differs; and most are understood."""
    found = [compare.renamed(asked, tmp_path / str(i)) for i, asked in enumerate(names.each())]
    # Refused are tables of two halves that differ, and a few names that no file has.
    assert sum(one.startswith(compare.REFUSED) for one in found) < len(found) / 50
    assert found.count(compare.EQUAL) > len(found) / 2


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 3000, 100))
def test_many_names_changed_together(start: int, tmp_path: Path) -> None:
    for seed in range(start, start + 100):
        compare.renamed(names.drawn(seed), tmp_path / str(seed))


def test_a_table_that_differs_from_its_copy_is_refused(tmp_path: Path) -> None:
    folder = zoo.write(tmp_path, "t5")
    tiny.edit(folder, lambda state: state.update({"encoder.embed_tokens.weight": state["shared.weight"] + 1}))
    with pytest.raises(TensorError, match=r"embed_tokens\.weight .* is not shared\.weight"):
        load(folder)


def _tied(folder: Path) -> bool:
    config: Any = load(folder).config
    return config.tied


def test_a_head_that_is_its_own_is_none_of_the_shared_ones(tmp_path: Path) -> None:
    folder = zoo.write(tmp_path, "gpt2-hub")
    tables = load_file(folder / "model.safetensors")
    tiny.edit(folder, lambda state: state.update({"lm_head.weight": tables["transformer.wte.weight"].clone()}))
    assert _tied(folder)
    tiny.edit(folder, lambda state: state["lm_head.weight"][3].add_(0.1))
    assert not _tied(folder)


def test_layers_behind_the_last_are_told(tmp_path: Path) -> None:
    def further(state: tiny.State) -> None:
        state.update({name.replace(".1.", ".2."): state[name].clone() for name in list(state) if ".1." in name})

    folder = tiny.edit(tiny.llama(tmp_path), further)
    assert len(load(folder).beyond) == 9 and all(".layers.2." in name for name in load(folder).beyond)


@pytest.mark.parametrize(
    ("config", "generation", "start"),
    [
        ({"decoder_start_token_id": 0}, {"decoder_start_token_id": 3}, 3),
        ({"decoder_start_token_id": 4}, None, 4),
        ({"decoder_start_token_id": 0}, {"bos_token_id": 5}, 5),
        ({"decoder_start_token_id": None, "bos_token_id": 6}, None, 6),
    ],
)
def test_what_answers_begin_with(config: dict, generation: dict | None, start: int, tmp_path: Path) -> None:
    folder = tiny.configure_folder(zoo.write(tmp_path, "t5"), **config)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    with compare.quiet() as transformers:
        model = transformers.T5ForConditionalGeneration.from_pretrained(folder)
        answer = model.generate(torch.tensor([compare.IDS]), max_new_tokens=4, do_sample=False)[0].tolist()
    ours = PlainModel(folder)
    meant: Any = ours.config
    assert answer[0] == meant.start == start
    assert ours.greedy(compare.IDS, 4)[: len(answer) - 1] == answer[1:]


@pytest.mark.parametrize("text", ["the cat </s>", "the </s> cat </s> </s>", "</s> </s>", "the cat"])
@pytest.mark.parametrize("name", ["gpt2-classifier", "llama-classifier"])
def test_a_classifier_does_not_read_padding(name: str, text: str, tmp_path: Path) -> None:
    """Where padding is end-of-text, a text that ends with it is classified by its last token before."""
    folder = tiny.configure_folder(zoo.write(tmp_path, name), pad_token_id=2, eos_token_id=2)
    model = PlainModel(folder)
    whole = model.tokenizer.encode(text).ids
    with compare.quiet() as transformers, torch.no_grad():
        reference = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        expected = reference(torch.tensor([whole])).logits[0]
    assert torch.allclose(model.encoded(model.sentence_ids(text)).float(), expected, atol=5e-5)


def test_a_text_holds_no_padding_where_places_are_counted_without(tmp_path: Path) -> None:
    model = PlainModel(zoo.write(tmp_path, "Roberta-SequenceClassification"))
    assert encode(model.tokenizer, model.config, "the cat").ids
    with pytest.raises(InputError, match="padding token"):
        encode(model.tokenizer, model.config, "the <s> cat")


def test_a_variant_is_read_if_there_is_one(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path)
    before = dict(load(folder).state)
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    assert load(folder).state.keys() == before.keys()
    (folder / "model.fp16.safetensors").rename(folder / "model.fp16-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.fp16.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(before, "model.fp16-00001-of-00001.safetensors")})
    )
    assert load(folder).state.keys() == before.keys()
    (folder / "model.int8.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="several variants: fp16, int8"):
        load(folder)


def test_an_index_does_not_count_beside_the_whole(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "nowhere.safetensors"}}))
    assert load(folder).state
    (folder / "model.safetensors").unlink()
    for content in ({"weight_map": []}, {"weight_map": {"a": 3}}, {}):
        index.write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match="maps no tensors to files"):
            load(folder)
