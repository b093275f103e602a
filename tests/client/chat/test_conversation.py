"""Conversations become prompts: by a template in a sandbox, or as one text that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from puma.client.chat import sandbox
from puma.client.chat.conversation import Conversation
from puma.client.chat.format import ChatFormat
from puma.errors import CheckpointError, InputError, PeerLost
from puma.reference.plain_model import PlainModel

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %} {{ m.content }}{% endfor %}{% if add_generation_prompt %} it{% endif %}"
)


def test_without_a_template_the_text_goes_on(checkpoints: dict[str, Path]) -> None:
    model = PlainModel(checkpoints["llama"])
    talk = Conversation(model)
    assert not talk.templated
    assert model.decode(talk.prompt_ids("the cat", 2)) == "the cat"
    sat = model.prompt_ids("sat", 1)[-1]
    assert talk.answered([sat]) == "sat"
    assert model.decode(talk.prompt_ids("on the mat", 2)) == "the cat sat on the mat"
    with pytest.raises(InputError):
        talk.prompt_ids("the cat " * 40, 2)
    assert model.decode(talk.prompt_ids("and", 2)) == "the cat sat on the mat and"


def test_with_a_template_the_model_sees_what_it_was_trained_on(checkpoints: dict[str, Path]) -> None:
    model = PlainModel(checkpoints["llama"])
    model.files["chat_template.jinja"] = TEMPLATE.encode
    model.files["tokenizer_config.json"] = lambda: b'{"bos_token": {"content": "<s>"}}'
    talk = Conversation(model)
    ids = talk.prompt_ids("the cat", 2)
    assert talk.templated and ids[0] == 1 and model.decode(ids) == "the cat it"
    model.eos = (ids[2],)
    assert talk.answered([ids[1], ids[2], ids[1]]) == "the"
    assert model.decode(talk.prompt_ids("dog", 2)) == "the cat the dog it"


@pytest.mark.parametrize("templated", [False, True])
def test_a_turn_that_failed_is_none(templated: bool, checkpoints: dict[str, Path]) -> None:
    """Else the next one would send its question again, without an answer, which many templates refuse."""
    model = PlainModel(checkpoints["llama"])
    if templated:
        model.files["chat_template.jinja"] = TEMPLATE.encode
    asked = list[list[int]]()

    class Cluster:
        def stream_ids(self, ids: list[int], *_: object, **__: object) -> Iterator[int]:
            asked.append(ids)
            if len(asked) == 1:
                raise PeerLost("P1 is gone", "ask again")
            yield ids[-1]

    talk = Conversation(model)
    with pytest.raises(PeerLost):
        talk.say(Cluster(), "the dog", 2)
    talk.say(Cluster(), "the cat", 2)
    assert asked[1] == Conversation(model).prompt_ids("the cat", 2)


@pytest.mark.parametrize("template", [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) if b < 0 %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% for a in range(99999) %}{{ f(n - 1) if n }}{% endfor %}{% endmacro %}{{ f(3) }}",
])  # fmt: skip
def test_templates_come_to_an_end(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_STEPS", 5000)
    form = ChatFormat({"default": template})
    with pytest.raises(InputError, match="TooLong: more than 5,000 steps"):
        form.render([{"role": "user", "content": "x"}])
    assert ChatFormat({"default": "{% for a in range(4999) %}{% endfor %}x"}).render([{"role": "user"}]) == "x"


def test_a_template_that_complains_at_length_is_not_repeated_whole() -> None:
    form = ChatFormat({"default": "{{ raise_exception('no ' * 10000) }}"})
    with pytest.raises(InputError) as error:
        form.render([{"role": "user", "content": "x"}])
    assert error.value.message.startswith("the model's chat template refuses this chat: no no")
    assert len(error.value.message) < 300


def test_settings_that_cannot_be_read(checkpoints: dict[str, Path]) -> None:
    model = PlainModel(checkpoints["llama"])
    model.files["tokenizer_config.json"] = lambda: b"{"
    with pytest.raises(CheckpointError, match="cannot be read"):
        Conversation(model)
