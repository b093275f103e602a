"""Text that grows: no half letters, nothing that a stop string may still take back; and chats by a template."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from puma.client.chat.format import chat_format
from puma.gateway.answers import Row, held_back
from puma.gateway.prompts import Asked, Message, prompt_ids
from puma.reference.plain_model import PlainModel
from tests.models import tiny

LETTERS = SimpleNamespace(decode=lambda ids: bytes(ids).decode(errors="replace"), eos=(0,))


def typed(text: str, stops: tuple[str, ...] = (), most: int = 99, end: bool = True) -> tuple[list[str], str | None]:
    """The pieces of a text whose tokens are bytes."""
    row = Row(LETTERS, b"> ", stops, most)
    pieces = []
    for byte in [*text.encode(), *([0] if end else [])]:
        if row.finish is None:
            pieces.append(row.add(byte))
    return pieces, row.finish


def test_half_a_letter_waits() -> None:
    pieces, finish = typed("né", most=3, end=False)
    assert pieces == ["n", "", "é"] and finish == "length"


def test_what_may_begin_a_stop_string_waits() -> None:
    assert typed("a\n\nb", ("\n\nHuman",)) == (["a", "", "", "\n\nb", "\0"], "stop")
    assert typed("a\n\nHuman", ("\n\nHuman",)) == (["a", *[""] * 7], "stop")
    assert typed("xyz", ("y", "xy"))[0] == ["", ""]
    assert held_back("ab", ("bc", "abd")) == 2 and held_back("ab", ()) == 0


def test_part_of_a_letter_may_go_on_with_a_stop_string() -> None:
    """Its first letter is not shown because the next one has half come."""
    pieces, finish = typed("x用户", ("用户",))
    assert "".join(pieces) == "x" and finish == "stop"
    assert "".join(typed("x用戶y", ("用户",), end=False)[0]) == "x用戶y"
    assert held_back("ab\ufffd", ("bé",)) == 2 and held_back("ab\ufffd", ()) == 1


def test_every_character_comes_once() -> None:
    text = "the cät sat\n\non"
    pieces, _ = typed(text, ("\n\n\n", "sad"))
    assert "".join(pieces).rstrip("\0") == text


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json", "several"])
def test_where_templates_lie(where: str, tmp_path: Path) -> None:
    template: Any = "{{ bos_token }} {{ messages[0].content }} cat"
    folder = tiny.llama(tmp_path, num_hidden_layers=1)
    assert not chat_format(PlainModel(folder)).templated
    if where == "chat_template.jinja":
        (folder / where).write_text(template)
        (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    else:
        named = [{"name": "tools", "template": "x"}, {"name": "default", "template": template}]
        content = {"chat_template": named if where == "several" else template, "bos_token": "<s>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(content))
    model = PlainModel(folder)
    form = chat_format(model)
    assert form.template() == template and form.specials == {"bos_token": "<s>"}
    ids = prompt_ids(model, form, Asked([Message("user", "the")]), 2)
    words = {word: i for i, word in enumerate(tiny.SPECIAL + tiny.WORDS)}
    assert ids == [words["<s>"], words["the"], words["cat"]]
