"""Every family equals transformers on tensors, at the prompt and at every cached step, alone and in a batch."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from puma.errors import UnsupportedModel
from puma.models import Cache, images, inputs
from puma.models.begun import Begun
from puma.models.checkpoint import configure, load
from puma.models.family import NEXT_SENTENCE, SPAN
from puma.models.fields import Reading
from tests.models import tiny, zoo
from tests.models.plain import continues, one_hot, open_model

IDS = [2, 5, 7, 9, 27, 6, 8, 20, 3]
BATCH = [IDS[:3], IDS[2:], IDS[5:6], IDS[1:8]]
LENGTHS = [len(ids) for ids in BATCH]
TYPES = [0] * 5 + [1] * 4
LABELS = {0: "bad", 1: "fair", 2: "good"}
IDENTITY = "torch.nn.modules.linear.Identity"
NAMED = ("gate", "up", "down")  # of an expert


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert_close(found, expected, atol=2e-5, rtol=2e-5)


def of_classes(found: Any) -> torch.Tensor:
    """A head's logits; of one for answers the starts' and the ends'."""
    return found.logits if "logits" in found else torch.stack([found.start_logits, found.end_logits], -1)


def answered(reference: Any, folder: Path, ids: list[int], **more: Any) -> Any:
    """What transformers gives."""
    with torch.no_grad():
        return reference(folder)(torch.tensor([ids]), output_hidden_states=True, **more)


@pytest.mark.parametrize("name", zoo.CAUSAL)
def test_causal(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    expected = answered(reference, folder, IDS)
    continues(model, checkpoint.config, IDS, expected, near)
    rows = one_hot(IDS, zoo.VOCABULARY)
    assert model(rows, ranked=True).argmax() == expected.logits[0, -1].argmax()


@pytest.mark.parametrize("name", ["qwen3-moe", "qwen3.5-moe"])
def test_all_experts_of_a_layer_in_one_tensor(name: str, tmp_path: Path) -> None:
    """As the library has them once a file is loaded, and as files of Qwen3.5 lie on the hub."""

    def stacked(state: tiny.State) -> None:
        for layer in {key.partition(".experts.")[0] for key in state if ".experts." in key}:
            parts = {p: [state.pop(f"{layer}.experts.{e}.{p}_proj.weight") for e in range(4)] for p in NAMED}
            both = [torch.cat(pair) for pair in zip(parts["gate"], parts["up"], strict=True)]
            state[f"{layer}.experts.gate_up_proj"] = torch.stack(both)
            state[f"{layer}.experts.down_proj"] = torch.stack(parts["down"])

    folder = zoo.write(tmp_path, name)
    rows = one_hot(IDS, zoo.VOCABULARY)
    expected = open_model(folder)[1].every(rows)
    assert torch.equal(open_model(tiny.edit(folder, stacked))[1].every(rows), expected)


@pytest.mark.parametrize("name", zoo.SEQ2SEQ)
def test_an_answer_to_a_prompt(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    answer = [0, 9, 4, 12, 3, 3, 8]
    expected = answered(reference, folder, IDS, decoder_input_ids=torch.tensor([answer]))
    cache = Cache(checkpoint.config.layers)
    near(model(one_hot(IDS, zoo.VOCABULARY), cache)[0], expected.logits[0, 0])
    for i, token in enumerate(answer[1:], 1):
        near(model(one_hot([token], zoo.VOCABULARY), cache)[0], expected.logits[0, i])
    near(model.hidden(one_hot(IDS, zoo.VOCABULARY)), expected.encoder_last_hidden_state[0])


def test_an_answer_to_sound(tmp_path: Path, reference: Any) -> None:
    """Two windows side by side, whose answers begin with tokens of their own, and how each goes on."""
    folder = zoo.write(tmp_path, "whisper")
    checkpoint, model = open_model(folder)
    config, sound = checkpoint.config, torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(2))
    answers = torch.tensor([[0, 9, 4, 12, 3], [0, 5, 4, 7, 8]])
    with torch.no_grad():
        expected = reference(folder)(sound, decoder_input_ids=answers)
    rows, cache = sound.transpose(1, 2).reshape(-1, 6), Cache(config.layers, [8, 8])
    near(model.states(rows, [8, 8]), expected.encoder_last_hidden_state.flatten(0, 1))
    near(model(Begun(rows, one_hot(answers[:, 1:3].flatten().tolist(), zoo.VOCABULARY)), cache), expected.logits[:, 2])
    for i in (3, 4):
        near(model(one_hot(answers[:, i].tolist(), zoo.VOCABULARY), cache), expected.logits[:, i])


@pytest.mark.parametrize("name", ["mbart", "t5-gated"])
def test_answers_that_clients_begin(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    batch, begun = [IDS, IDS[:4]], [[11, 5], [12, 5]]
    cache = Cache(checkpoint.config.layers, [len(ids) for ids in batch])
    rows = Begun(one_hot([*chain(*batch)], zoo.VOCABULARY), one_hot([*chain(*begun)], zoo.VOCABULARY))
    found = [model(rows, cache), model(one_hot([8, 9], zoo.VOCABULARY), cache)]
    for i, (ids, first, last) in enumerate(zip(batch, begun, (8, 9), strict=True)):
        expected = answered(reference, folder, ids, decoder_input_ids=torch.tensor([[0, *first, last]]))
        near(torch.stack([each[i] for each in found]), expected.logits[0, 2:])


@pytest.mark.parametrize("name", zoo.TEXTS)
def test_classes_that_a_decoder_tells(name: str, tmp_path: Path, reference: Any) -> None:
    """Of several texts side by side, each of which ends with the token that the library looks for."""
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    batch = [[2, 5, 3], IDS, [7, 3]]
    rows, lengths = one_hot([*chain(*batch)], zoo.VOCABULARY), [len(ids) for ids in batch]
    found = model.classify(model.states(rows, lengths), lengths)
    assert checkpoint.config.labels == ("bad", "fair", "good")
    near(found, torch.cat([answered(reference, folder, ids).logits for ids in batch]))


def test_an_answer_begins_as_its_files_say(tmp_path: Path, reference: Any) -> None:
    """A second token that is forced is read with the first one."""
    folder = zoo.write(tmp_path, "bart")
    told = {"decoder_start_token_id": 2, "forced_bos_token_id": 5, "suppress_tokens": [4, 900], "eos_token_id": 3}
    told |= {"begin_suppress_tokens": [6], "bad_words_ids": [[7], [8, 9], [3]]}
    (folder / "generation_config.json").write_text(json.dumps(told))
    checkpoint, model = open_model(folder)
    config: Any = checkpoint.config
    assert (config.starts, config.barred, config.barred_first) == ((2, 5), (4, 7), (6,))
    expected = answered(reference, folder, IDS, decoder_input_ids=torch.tensor([[2, 5, 9]]))
    cache = Cache(config.layers)
    near(model(one_hot(IDS, zoo.VOCABULARY), cache)[0], expected.logits[0, 1])
    near(model(one_hot([9], zoo.VOCABULARY), cache)[0], expected.logits[0, 2])


BATCHED = ["t5", "mistral", "gemma2", "gemma3", "neox", "opt", "qwen3", "qwen3.5", "qwen3-moe", "bart", "marian"]
BATCHED += ["qwen3-next"]


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_is_its_prompts(name: str, tmp_path: Path) -> None:
    checkpoint, model = open_model(zoo.write(tmp_path, name))
    together, alone = Cache(checkpoint.config.layers, LENGTHS), [Cache(checkpoint.config.layers) for _ in BATCH]
    for step in (BATCH, [[5 + i] for i in range(4)], [[9]] * 4):
        found = model(one_hot([*chain(*step)], zoo.VOCABULARY), together)
        near(found, torch.cat([model(one_hot(ids, zoo.VOCABULARY), c) for ids, c in zip(step, alone, strict=True)]))


@pytest.mark.parametrize("name", zoo.ENCODERS)
def test_encoder(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    kinds = TYPES if inputs(checkpoint.config).types > 1 else None
    expected = answered(reference, folder, IDS, **({"token_type_ids": torch.tensor([kinds])} if kinds else {}))
    hidden = model.states(one_hot(IDS, zoo.VOCABULARY), [len(IDS)], kinds or [])
    near(hidden, expected.last_hidden_state[0])
    if getattr(checkpoint.config, "pooler", False):
        near(model.pool(hidden)[0], expected.pooler_output[0])


@pytest.mark.parametrize("name", ["mpnet", "deberta", "deberta-v2", "modernbert", "nomic", "embeddinggemma"])
def test_padding_is_not_seen(name: str, tmp_path: Path) -> None:
    checkpoint, model = open_model(zoo.write(tmp_path, name))
    assert inputs(checkpoint.config).pads == "behind"
    alone = model.states(one_hot(IDS, zoo.VOCABULARY), [len(IDS)])
    flags = torch.tensor([0.0] * len(IDS) + [1.0] * 3)
    padded = model.states(one_hot([*IDS, 4, 4, 4], zoo.VOCABULARY), [len(flags)], [], flags)
    near(padded[: len(IDS)], alone)


@pytest.mark.parametrize("name", zoo.HEADS)
def test_heads_of_encoders(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    if "MultipleChoice" in name:
        with torch.no_grad():
            expected = reference(folder)(torch.tensor([[IDS]])).logits
    else:
        expected = of_classes(answered(reference, folder, IDS))[0]
    hidden = model(one_hot(IDS, zoo.VOCABULARY))
    if "MaskedLM" in name:
        near(model.predict(hidden, [1, 4]), expected[[1, 4]])
        return
    labels = {"QuestionAnswering": SPAN, "MultipleChoice": ("score",), "NextSentencePrediction": NEXT_SENTENCE}
    assert checkpoint.config.labels == labels.get(name.partition("-")[2], ("bad", "fair", "good"))
    near(model.classify(hidden), expected.reshape(-1, len(checkpoint.config.labels)))
    hidden = model(one_hot([*chain(*BATCH)], zoo.VOCABULARY), None, LENGTHS)
    alone = [model.classify(model(one_hot(ids, zoo.VOCABULARY))) for ids in BATCH]
    near(model.classify(hidden, LENGTHS), torch.cat(alone))


@pytest.mark.parametrize("name", zoo.IMAGES)
def test_images(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    config: Any = checkpoint.config
    pixels = torch.randn(2, config.channels, config.image_size, config.image_size)
    with torch.no_grad():
        expected = reference(folder)(pixels).logits
    hidden = model(torch.cat([images.patches(config, image) for image in pixels]))
    near(model.classify(hidden), expected)


@pytest.mark.parametrize("name", zoo.LAST)
def test_heads_of_decoders(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    near(
        model.classify(model.hidden(one_hot(IDS, checkpoint.config.vocab_size))),
        answered(reference, folder, IDS).logits,
    )


@pytest.mark.parametrize("name", zoo.EACH)
def test_heads_for_all_tokens_of_decoders(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    assert checkpoint.config.labels == (SPAN if "answers" in name else ("bad", "fair", "good"))
    found = model.classify(model.states(one_hot([*chain(*BATCH)], zoo.VOCABULARY), LENGTHS), LENGTHS)
    expected = [of_classes(answered(reference, folder, ids))[0] for ids in BATCH]
    near(found, torch.cat(expected))


@pytest.mark.parametrize(
    ("settings", "labels", "scores", "relevance"),
    [
        ({}, ("bad", "fair", "good"), "", ""),
        ({"problem_type": "multi_label_classification"}, ("bad", "fair", "good"), "sigmoid", ""),
        ({"problem_type": "regression"}, ("bad", "fair", "good"), "identity", ""),
        ({"problem_type": "single_label_classification", "id2label": {0: "LABEL_0"}}, ("score",), "", ""),
        ({"problem_type": "regression", "id2label": {0: "LABEL_0"}}, ("score",), "identity", ""),
        ({"id2label": {0: "stars"}, "sbert_ce_default_activation_function": IDENTITY}, ("stars",), "", "identity"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.Sigmoid"}}, ("bad", "fair", "good"), "", "sigmoid"),
    ],
)
def test_how_logits_are_read(
    settings: dict[str, Any], labels: tuple[str, ...], scores: Any, relevance: Any, tmp_path: Path
) -> None:
    config: Any = configure("BertForSequenceClassification", tiny.BERT | {"id2label": LABELS} | settings, set())
    assert (config.labels, config.reading) == (labels, Reading(scores=scores, relevance=relevance))


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before"),
    ("opt", {"word_embed_proj_dim": 12}, "word_embed_proj_dim"),
    ("mistral", {"layer_types": ["full_attention"] * 2}, "layer 0"),
    ("gemma2", {"layer_types": ["full_attention"]}, "layer_types"),
    ("gemma2", {"layer_types": ["chunked_attention"] * 3}, "chunked_attention"),
    ("qwen2", {"model_type": "llama"}, "model_type"),
    ("neox", {"rope_scaling": {"type": "linear"}}, "factor"),
    ("Electra-MaskedLM", {"hidden_act": "relu"}, "hidden_act"),
    ("Bert-MaskedLM", {"hidden_act": "quick_gelu"}, "hidden_act"),
    ("gemma2", {"query_pre_attn_scalar": "wide"}, "another kind"),
    ("gemma2", {"attn_logit_softcapping": 2.0}, "soft cap"),
    ("gemma3", {"hidden_activation": "silu"}, "hidden_activation"),
    ("phi3", {"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
    ("neox", {"num_attention_heads": 8}, "head_dim"),
    ("t5", {"dense_act_fn": "mish"}, "mish"),
    ("t5", {"decoder_start_token_id": 500}, "vocabulary"),
    ("bart", {"decoder_start_token_id": 500}, "vocabulary"),
    ("bart", {"decoder_attention_heads": 5}, "heads"),
    ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings"),
    ("m2m100", {"pad_token_id": 0}, "pad_token_id"),
    ("vit", {"patch_size": 5}, "patch_size"),
    ("albert", {"inner_group_num": 2}, "inner_group_num"),
    ("roberta", {"pad_token_id": 0}, "pad_token_id"),
    ("distilbert", {"activation": "mish"}, "activation"),
    ("Bert-SequenceClassification", {"problem_type": "ranking"}, "problem_type"),
    ("Bert-QuestionAnswering", {"id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
    ("Electra-MultipleChoice", {"summary_type": "mean"}, "summar"),
    ("Electra-MultipleChoice", {"summary_activation": "tanh"}, "summar"),
    ("electra", {"num_attention_heads": 5}, "num_attention_heads"),
    ("mpnet", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets"),
    ("MPNet-MaskedLM", {"hidden_act": "relu"}, "hidden_act"),
    ("deberta", {"pos_att_type": "p2p|c2p"}, "pos_att_type"),
    ("deberta", {"relative_attention": False}, "relative_attention"),
    ("deberta", {"max_relative_positions": 4}, "position_buckets"),
    ("deberta", {"embedding_size": 12}, "embedding_size"),
    ("deberta-convolution", {"conv_groups": 2}, "conv_groups"),
    ("deberta-convolution", {"conv_kernel_size": 4}, "convolution"),
    ("DebertaV2-SequenceClassification", {"pooler_hidden_act": "quick_gelu"}, "pooler_hidden_act"),
    ("nomic", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ("nomic", {"num_experts": 8}, "num_experts"),
    ("nomic", {"prenorm": True}, "prenorm"),
    ("nomic", {"hidden_act": "relu"}, "hidden_act"),
    ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gte", {"architectures": ["NewModel"]}, "NewModel"),
    ("modernbert", {"layer_types": ["chunked_attention"] * 4}, "layer_types"),
    ("qwen3.5", {"hidden_act": "gelu"}, "hidden_act"),
    ("ModernBert-SequenceClassification", {"classifier_pooling": "max"}, "classifier_pooling"),
]


@pytest.mark.parametrize(("name", "change", "says"), REFUSED, ids=[f"{n}-{says}" for n, _, says in REFUSED])
def test_what_would_be_computed_wrongly_is_refused(
    name: str, change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = tiny.configure_folder(zoo.write(tmp_path, name), **change)
    (folder / "generation_config.json").unlink(missing_ok=True)
    with pytest.raises(UnsupportedModel, match=says) as refused:
        load(folder)
    assert refused.value.hint


def test_windows_without_an_angle_of_their_own_turn_as_all_layers() -> None:
    """As ModernBERT's config.json could say it before transformers 5, which fails at it."""
    raw = zoo.MODERNBERT | {"model_type": "modernbert", "global_rope_theta": 50.0}
    nothing, same, usual = (
        configure("ModernBertModel", raw | more, set())
        for more in ({"local_rope_theta": None}, {"local_rope_theta": 50.0}, {})
    )
    assert nothing == same != usual
