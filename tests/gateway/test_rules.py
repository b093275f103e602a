"""A gateway before a model with rules of its own: followed for every asker's own text where logits are revealed."""

from __future__ import annotations

import json
from pathlib import Path

import openai
import pytest

from puma.cli.commands.ask.gateway import _drawn
from puma.errors import InputError
from puma.gateway.endpoints.completions import _ids
from puma.models.files.generation import FILE
from puma.reference.plain_model import PlainModel
from tests.gateway.conftest import serving
from tests.models import tiny, zoo

PROMPTS = ["the cat", "a dog sat on"]


def test_each_answer_by_its_own_text(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path, num_hidden_layers=1)
    (folder / FILE).write_text(json.dumps({"no_repeat_ngram_size": 1, "eos_token_id": 2}))
    with serving(folder, reveal=True) as found:
        clear = found.clear
        plain = [clear.greedy(clear.prompt_ids(prompt, 6), 6, ruled=True) for prompt in PROMPTS]
        clear.eos = (plain[0][2],)  # the first one leaves earlier
        asked = {"model": "tiny", "prompt": PROMPTS, "max_tokens": 6, "temperature": 0, "logprobs": 1}
        answer = found.client.completions.create(**asked)
        texts = [choice.text.split() for choice in answer.choices]
        assert texts[0] == clear.decode(plain[0][:3]).split()[: len(texts[0])]
        assert texts[1] == clear.decode(plain[1]).split()[: len(texts[1])] and len(texts[1]) > 3


def test_chance_where_a_request_names_none(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path, num_hidden_layers=1)
    assert _drawn(PlainModel(folder), None, True) == (1.0, 0, 1.0)
    (folder / FILE).write_text(json.dumps({"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}))
    clear = PlainModel(folder)
    assert _drawn(clear, None, True) == (0.6, 20, 0.95)
    assert _drawn(clear, 0.0, True) == (0.0, 20, 0.95)
    assert _drawn(clear, None, False) == (0.6, 0, 1.0)


def test_answers_begin_as_a_request_says(tmp_path: Path) -> None:
    """Of several prompts in one batch, which leave it one by one; as at `puma generate --begin`."""
    with serving(zoo.write(tmp_path / "model", "mbart")) as found:
        clear, begun = found.clear, found.clear.begun("dog")
        plain = [clear.greedy(clear.prompt_ids(prompt, 5), 4, begun=begun) for prompt in PROMPTS]
        assert plain != [clear.greedy(clear.prompt_ids(prompt, 5), 4) for prompt in PROMPTS]
        asked = {"model": "tiny", "prompt": PROMPTS, "max_tokens": 4, "temperature": 0}
        answer = found.client.completions.create(**asked, extra_body={"begin": "dog"})
        assert [choice.text for choice in answer.choices] == [clear.decode(ids) for ids in plain]
        for body, param in (({"begin": "nowhere"}, "begin"), ({"language": "de_DE"}, "language")):
            with pytest.raises(openai.BadRequestError) as refused:
                found.client.completions.create(**asked, extra_body=body)
            assert refused.value.param == param
        ids = clear.prompt_ids(" ".join(["the cat sat on"] * 7), 1)
        assert len(ids) > found.clear.config.context - 8  # the answer has a context of its own all the same
        said = [{"role": "user", "content": " ".join(["the cat sat on"] * 7)}]
        long = found.client.chat.completions.create(model="tiny", messages=said, temperature=0)
        room = clear.greedy(ids, 24)
        ended = next((i + 1 for i, token in enumerate(room) if token in clear.eos), len(room))
        assert long.usage is not None and long.usage.completion_tokens == ended
        assert long.choices[0].message.content == clear.decode(room[:ended])


def test_token_ids_that_no_text_has_are_refused(tmp_path: Path) -> None:
    """At padding M2M100 would count the places of a text in another way."""
    model = PlainModel(zoo.write(tmp_path, "m2m100"))
    assert _ids(model, [4, 5, 6], 2, "") == [4, 5, 6]
    with pytest.raises(InputError, match=r"padding token \(1\)"):
        _ids(model, [4, 1, 6], 2, "")
