"""Prompts of chats are those of transformers' apply_chat_template; where that fails, ours fails by name."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puma.client.chat.format import ChatFormat, chat_format
from puma.errors import CheckpointError, InputError
from puma.models.files.source import public_files
from tests.client.chat.templates import FAULTY, TEMPLATES
from tests.models import tiny

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "zwei ü"}}}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds <b>", "parameters": {"type": "object"}}}
CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [{"role": "user", "content": "Hello"}],
    "spaces": [{"role": "user", "content": "  Hello \n"}, {"role": "assistant", "content": " so "}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße 🙂 <b>"}],
    "turns": [
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user",
        "content": "three"},
    ],
    "prefilled": [{"role": "user", "content": "Count"}, {"role": "assistant", "content": "one, two, "}],
    "thought": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
        {"role": "user", "content": "again"},
    ],
    "reasoning": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "yes", "reasoning": "because", "name": None},
    ],
    "twice": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "late system": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}],
    "wizard": [{"role": "wizard", "content": "a"}],
    "calls": [
        {"role": "user", "content": "1+2?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"}, {"role": "assistant", "content": "3."},
        {"role": "user", "content": "Thanks"},
    ],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "so "}, {"type": "text", "text": " it is"}]}],
    "null": [{"role": "assistant", "content": None}, {"role": "user", "content": "x"}],
    "empty": [{"role": "user", "content": ""}],
}  # fmt: skip
ENDS: list[dict[str, Any]] = [{"add_generation_prompt": True}, {}, {"continue_final_message": True}]
MORE: list[dict[str, Any]] = [
    {}, {"tools": [TOOL]}, {"documents": [{"title": "t", "text": "x"}]}, {"enable_thinking": False},
    {"date_string": "1 Jan"},
]  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of transformers without any special token."""
    folder = tiny.llama(tmp_path_factory.mktemp("chat"), num_hidden_layers=1)
    return transformers.AutoTokenizer.from_pretrained(str(folder))


def theirs(library: Any, template: str, marks: dict[str, Any], chat: Any, **asked: Any) -> str | None:
    """What transformers makes of it; None where it fails, or shows its own mark."""
    try:
        found = library.apply_chat_template(chat, chat_template=template, tokenize=False, **marks, **asked)
    except Exception:
        return None
    return None if "CONTINUE_FINAL_MESSAGE_TAG" in found else found  # a message that is shown twice leaves its mark


def ours(template: str, marks: dict[str, Any], chat: Any, **asked: Any) -> str | None:
    form = ChatFormat({"default": template}, marks)
    ends = {"answer": asked.pop("add_generation_prompt", False), "go_on": asked.pop("continue_final_message", False)}
    try:
        return form.render(chat, **ends, **asked)
    except InputError as error:
        assert error.hint and "chat" in error.message and len(error.message) < 400
        return None


def present(marks: dict[str, Any]) -> dict[str, Any]:
    return {name: word for name, word in marks.items() if word is not None}


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_style_of_template(name: str, library: Any) -> None:
    template, marks = TEMPLATES[name][0], present(TEMPLATES[name][1])
    rendered = 0
    for (label, chat), end, more in itertools.product(CHATS.items(), ENDS, MORE):
        wanted = theirs(library, template, marks, chat, **end, **more)
        assert ours(template, marks, chat, **end, **more) == wanted, (label, end, more)
        rendered += wanted is not None
    assert rendered >= 60


@pytest.mark.parametrize("template", FAULTY)
def test_what_goes_wrong_inside_a_template_has_a_name(template: str, library: Any) -> None:
    assert theirs(library, template, {}, CHATS["one"]) is None
    with pytest.raises(InputError, match="chat template") as error:
        ChatFormat({"default": template}).render(CHATS["one"])
    assert error.value.hint


PIECES = st.sampled_from([
    "{{ bos_token }}", "{{ eos_token }}", "{{ tools }}", "{{ documents }}", "{{ add_generation_prompt }}", "\n", "  ",
    "{% if tools %}T{% else %}-{% endif %}", "{% if tools is none %}N{% endif %}", "{{ messages | tojson }}",
    "{% for m in messages %}{{ m.role }}{{ m['content'] | trim }}{% endfor %}", "{{ messages[0].content }}",
    "{%- for m in messages if m.role != 'system' -%}\n {{ loop.index0 }}{{ m.content[::-1] }}{%- endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.length %}{% endfor %}{{ ns.n }}",
    "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "{% generation %}{{ messages[-1].content }}{% endgeneration %}",
    "{{ messages[-1].content | upper | replace('A', 'b') }}",
    "{{ messages[-1].content.split(' ')[0] }}", "{{ messages[1].content }}", "{{ messages[1].content.x }}",
    "{{ 1 / (messages | length - 2) }}", "{{ raise_exception('so') if messages | length > 3 }}",
    "{{ strftime_now('%Y') }}",
    "{{ messages | map(attribute='role') | join(',') }}", "{{ {'k': messages[0].content} | tojson(indent=1) }}",
    "{{ messages[0] | tojson(separators=(',', ':'), ensure_ascii=true) }}", "{{ messages[0].content + bos_token }}",
    "{% for a in range(3) %}{% for b in range(a) if b %}{{ a }}{{ b }}{% endfor %}{% else %}none{% endfor %}",
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(messages[0].role) }}", "{{ messages[0].name is defined }}",
    "{% filter upper %}{{ messages[0].content }}{% endfilter %}", "{{ '%05d' % (messages | length) }}",
    "{% call(x) f('y') %}{{ x }}{% endcall %}", "{% raw %}{{ x }}{% endraw %}", "{# a remark #}\n",
    "{{ 'ü' | urlencode }}",
])  # fmt: skip
WORDS = st.text(st.sampled_from("aA b\n<>'\"&üß{}%🙂\u2028"), max_size=8)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": st.none() | WORDS},
        optional={"name": st.none() | WORDS, "reasoning_content": WORDS, "tool_calls": st.just([CALL])},
    ),
    min_size=1, max_size=5,
)  # fmt: skip


def alike(
    library: Any, pieces: list[str], chat: Any, end: dict[str, Any], more: dict[str, Any], marks: bool
) -> None:  # fmt: skip
    """A template of these pieces gives what the library makes of it, or both fail."""
    template, specials = "".join(pieces), {"bos_token": "<s>", "eos_token": "</s>"} if marks else {}
    wanted = theirs(library, template, specials, chat, **end, **more)
    assert ours(template, specials, chat, **end, **more) == wanted


RANDOM = (st.lists(PIECES, max_size=7), MESSAGES, st.sampled_from(ENDS), st.sampled_from(MORE[:3]), st.booleans())


@settings(max_examples=400, deadline=None)
@given(*RANDOM)
def test_templates_and_chats_at_random(library: Any, pieces: Any, chat: Any, end: Any, more: Any, marks: bool) -> None:
    alike(library, pieces, chat, end, more, marks)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=20_000, deadline=None)
@given(*RANDOM)
def test_many_more(library: Any, pieces: Any, chat: Any, end: Any, more: Any, marks: bool) -> None:
    alike(library, pieces, chat, end, more, marks)


ADDED = {"__type": "AddedToken", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
SEVERAL = [{"name": "tool_use", "template": "[tools]"}, {"name": "default", "template": "[default]"}]
SHOWN = (
    "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ pad_token }}|{{ image_token }}|{{ foo_token }}|{{ x_token }}"
)
FILES: dict[str, dict[str, Any]] = {
    "nothing but a template": {"chat_template.jinja": SHOWN},
    "null is none": {"tokenizer_config.json": {"chat_template": SHOWN, "bos_token": None, "eos_token": "</s>"}},
    "null of a class": {"tokenizer_config.json": {
        "chat_template": SHOWN, "bos_token": None, "tokenizer_class": "LlamaTokenizerFast"}},
    "with what else is said": {"tokenizer_config.json": {"chat_template": SHOWN, "bos_token": {"content": "<s>",
    **ADDED}}},
    "tokens of the model's own": {"tokenizer_config.json": {
        "chat_template": SHOWN, "image_token": "<s>", "extra_special_tokens": {"foo_token": "the"}, "x_token": True}},
    "an older map": {
        "tokenizer_config.json": {"chat_template": SHOWN, "bos_token": "[CLS]"},
        "special_tokens_map.json": {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False,
        "normalized": False, "rstrip": False, "single_word": False}}},
    "a map that does not count": {
        "tokenizer_config.json": {"chat_template": SHOWN, "bos_token": "[CLS]", "added_tokens_decoder": {}},
        "special_tokens_map.json": {"bos_token": "<s>"}},
    **{kind: {"tokenizer_config.json": {"chat_template": SHOWN, "tokenizer_class": kind}} for kind in (
        "LlamaTokenizerFast", "LlamaTokenizer", "PreTrainedTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast",
        "GPTNeoXTokenizerFast", "Qwen2TokenizerFast", "GemmaTokenizerFast")},
    "several": {"tokenizer_config.json": {"chat_template": SEVERAL}},
    "several by name": {"tokenizer_config.json": {"chat_template": {"default": "[d]", "tool_use": "[t]"}}},
    "none for this": {"tokenizer_config.json": {"chat_template": SEVERAL[:1]}},
    "a folder": {"chat_template.jinja": "[d]", "additional_chat_templates/tool_use.jinja": "[t]",
    "additional_chat_templates/rag.jinja": "[r]"},
    "a folder alone": {
        "additional_chat_templates/tool_use.jinja": "[t]", "tokenizer_config.json": {"chat_template": "[d]"}},
    "files before settings": {"chat_template.jinja": "[file]", "tokenizer_config.json": {"chat_template": SEVERAL}},
    "with an end of line": {"chat_template.jinja": "[file]\n\n"},
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_which_template_and_which_tokens(name: str, tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "model", num_hidden_layers=1)
    (folder / "additional_chat_templates").mkdir()
    for path, content in FILES[name].items():
        (folder / path).write_text(content if isinstance(content, str) else json.dumps(content))
    library, found = transformers.AutoTokenizer.from_pretrained(str(folder)), 0
    for tools in (None, [TOOL]):
        try:
            wanted = library.apply_chat_template(CHATS["one"], tools=tools, tokenize=False)
        except ValueError:
            wanted = None
        try:
            mine = chat_format(Named(folder)).render(CHATS["one"], tools)  # type: ignore[arg-type]
        except CheckpointError as error:
            assert "none the default" in error.message
            mine = None
        assert mine == wanted
        found += wanted is not None
    assert found


class Named:
    """What of a model is looked at."""

    name = "tiny"

    def __init__(self, folder: Path) -> None:
        self.files = public_files(folder)


@pytest.mark.parametrize(
    "settings",
    [b"{", b"\xff", b'{"chat_template": 5}', b'{"chat_template": [5]}', b'{"chat_template": [{"name": "x"}]}',
     b'{"chat_template": {"default": null}}', b'{"bos_token": 5}', b'{"bos_token": {"content": 5}}',
     b'{"bos_token": {}}', b'[' * 100000],
)  # fmt: skip
def test_settings_that_make_no_sense(settings: bytes) -> None:
    class Broken:
        name = "tiny"
        files = {"tokenizer_config.json": lambda: settings}  # noqa: RUF012

    with pytest.raises(CheckpointError, match="cannot be read"):
        chat_format(Broken())  # type: ignore[arg-type]
