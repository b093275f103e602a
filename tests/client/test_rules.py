"""What generation_config.json asks of the next token: followed as transformers follows it where logits are seen, and
named in a line where not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from puma.client.sampling import Sampler, Sampling
from puma.client.tokens.rules import SEARCHED, UNSEEN, Rules
from puma.errors import RulesWarning, UnsupportedModel
from puma.local.cluster import LocalCluster
from puma.models.files import generation
from puma.reference.plain_model import PlainModel
from tests.models import tiny, zoo
from tests.threads import Threads

VOCABULARY, EOS = 12, [2, 5]


def rules(**said: Any) -> Rules:
    return Rules.of(generation.public(said))


# As the library has it.


def drawn(chance: random.Random) -> dict[str, Any]:
    """Some settings, each with any value that makes sense."""

    def ids(most: int) -> list[int]:
        return [chance.randrange(VOCABULARY) for _ in range(chance.randint(1, most))]

    every: dict[str, Any] = {
        "repetition_penalty": chance.choice([0.7, 1.3, 2.0]),
        "encoder_repetition_penalty": chance.choice([0.5, 1.5]),
        "no_repeat_ngram_size": chance.randint(1, 3),
        "encoder_no_repeat_ngram_size": chance.randint(1, 3),
        "bad_words_ids": [ids(3) for _ in range(3)],
        "sequence_bias": [[list(each), chance.uniform(-9, 9)] for each in {tuple(ids(3)) for _ in range(3)}],
        "min_length": chance.randint(1, 8),
        "min_new_tokens": chance.randint(1, 5),
        "forced_bos_token_id": chance.randrange(VOCABULARY),
        "suppress_tokens": ids(2),
        "begin_suppress_tokens": ids(2),
    }
    assert every.keys() == set(generation.RULES)
    return {name: every[name] for name in chance.sample(sorted(every), chance.randint(1, 4))}


def check(seed: int) -> None:
    """One random file, prompt and row of logits after another."""
    import transformers
    from transformers.generation.utils import GenerationMixin

    chance = random.Random(seed)
    said, apart = drawn(chance), chance.random() < 0.4
    prompt = [chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 5))]
    text = [chance.randrange(VOCABULARY)] if apart else list(prompt)
    try:
        config = transformers.GenerationConfig(**said)
    except ValueError:  # a token that is forced and suppressed
        return
    config._eos_token_tensor = torch.tensor(EOS)
    model = SimpleNamespace(
        config=SimpleNamespace(is_encoder_decoder=apart), _merge_criteria_processor_list=lambda a, _: a
    )
    given = {"input_ids_seq_length": len(text), "encoder_input_ids": torch.tensor([prompt])}
    theirs = GenerationMixin._get_logits_processor(model, config, **given)  # type: ignore[arg-type]
    ours = rules(**said).following([prompt], text if apart else [], EOS)
    assert ours is not None
    draw = torch.Generator().manual_seed(seed)
    for _ in range(6):
        logits = 3 * torch.randn(1, VOCABULARY, generator=draw)
        expected = theirs(torch.tensor([text]), logits.clone())
        torch.testing.assert_close(ours.ruled(logits), expected, atol=1e-6, rtol=1e-6, msg=f"{seed}: {said}, {text}")
        new = int(expected.argmax()) if chance.random() < 0.5 else chance.randrange(VOCABULARY)
        ours.add([new])
        text.append(new)


@pytest.mark.filterwarnings("ignore")
def test_logits_are_changed_as_the_library_changes_them() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    for seed in range(120):
        check(seed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_more() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    for seed in range(1000, 9000):
        check(seed)


PLENTY = {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "suppress_tokens": [9], "min_new_tokens": 4}


@pytest.mark.parametrize("name", ["llama-linear", "t5"])
@pytest.mark.filterwarnings("ignore:.*:UserWarning:transformers")
def test_whole_answers(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = zoo.write(tmp_path, name)
    special = {"eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 0, "bos_token_id": 1}
    (folder / generation.FILE).write_text(json.dumps(PLENTY | special))
    clear = PlainModel(folder)
    ids = clear.prompt_ids("the cat sat on the", 8)
    kind = getattr(transformers, clear.checkpoint.architecture)
    model = kind.from_pretrained(folder)
    found = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0].tolist()
    new = found[1:] if name == "t5" else found[len(ids) :]
    assert clear.greedy(ids, 8, ruled=True)[: len(new)] == new != clear.greedy(ids, 8)[: len(new)]


# Where it is followed, and where not.


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    folder = tiny.llama(tmp_path, num_hidden_layers=1)
    (folder / generation.FILE).write_text(json.dumps({"no_repeat_ngram_size": 1, "eos_token_id": 2}))
    return folder


def test_a_cluster_that_reveals_logits_follows(llama: Path) -> None:
    with Threads() as trio:
        cluster = LocalCluster(llama, trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        clear, prompts = cluster.model, ["the cat", "a dog sat on"]
        for answer, prompt in zip(cluster.generate(prompts, 6), prompts, strict=True):
            ids = clear.prompt_ids(prompt, 6)
            assert answer.token_ids == clear.greedy(ids, 6, ruled=True)
            assert len({*ids, *answer.token_ids}) == len(ids) + 6
        sampled = cluster.generate("the cat", 8, temperature=2.0).token_ids
        assert len(set(sampled)) == 8
        assert list(cluster.stream("the cat", 6)) == clear.greedy(clear.prompt_ids("the cat", 6), 6, ruled=True)
        ids = clear.prompt_ids("the cat", 3)
        beams = clear.searching(ids, 2, 3, 1.0)
        list(clear.session.search(ids, beams, stop=True))
        found = cluster.search("the cat", 3, 2).token_ids
        assert found == beams.best and len({*ids, *found}) == len(ids) + 3


def test_one_that_does_not_says_so_once(llama: Path) -> None:
    with Threads() as trio:
        cluster = LocalCluster(llama, trio=trio)  # type: ignore[arg-type]
        with pytest.warns(RulesWarning, match=r"no_repeat_ngram_size = 1 \(needs logits\)"):
            found = cluster.generate("the cat", 3)
        ids = cluster.model.prompt_ids("the cat", 3)
        assert found.token_ids == cluster.generate("the cat", 3).token_ids == cluster.model.greedy(ids, 3)


def test_prompts_that_leave_take_their_own_text_along() -> None:
    following = rules(no_repeat_ngram_size=1).following([[1], [2], [3]], (), ())
    sampler = Sampler(Sampling(), following)
    likely = torch.arange(5.0).expand(3, 5)
    assert sampler(likely) == [4, 4, 4]
    sampler.keep([1, 2])
    assert sampler(likely[1:]) == [3, 2]


# What is said.


def test_what_changes_nothing_is_not_kept() -> None:
    said = {"repetition_penalty": 1.0, "num_beams": 1, "do_sample": False, "temperature": 0.6, "bad_words_ids": None}
    said |= {"max_new_tokens": 20, "eos_token_id": 2, "min_length": 0, "alignment_heads": [[1, 2]], "top_k": 50}
    assert generation.public(said) == {}
    assert rules(**said) == Rules() and not Rules().unfollowed(UNSEEN) and not Rules().undrawn()
    assert rules(forced_bos_token_id=0).from_logits == {"forced_bos_token_id": 0}


def test_lines() -> None:
    found = rules(num_beams=4, repetition_penalty=1.1, do_sample=True, top_p=0.9, min_p=0.1)
    assert found.unfollowed() == (
        "generation_config.json asks for what is not followed: min_p = 0.1, num_beams = 4 (not implemented)"
    )
    assert found.unfollowed(UNSEEN).endswith("; repetition_penalty = 1.1 (needs logits)")
    assert "num_beams" not in found.unfollowed(SEARCHED)
    assert found.undrawn().startswith("generation_config.json asks for samples (temperature = 1.0, top_p = 0.9)")
    assert found.chances == {"temperature": 1.0, "top_p": 0.9}


@pytest.mark.parametrize(
    "said", [{"repetition_penalty": "much"}, {"bad_words_ids": [[]]}, {"repetition_penalty": -1.0}, {"top_p": 2.0}]
)
def test_nonsense_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModel, match=generation.FILE):
        rules(do_sample=True, **said)


def test_older_checkpoints_say_it_in_config_json(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path, no_repeat_ngram_size=3)
    assert PlainModel(folder).rules == rules(no_repeat_ngram_size=3)
    (folder / generation.FILE).write_text("{}")
    assert PlainModel(folder).rules == Rules()
