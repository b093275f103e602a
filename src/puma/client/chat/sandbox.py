"""Chat templates come from strangers, with the model: they run in a sandbox that lets them read what they are given,
and nothing else, for a bounded number of steps.

What a template may use is what Hugging Face's transformers lets it use (docs, "Chat templates"; utils/
chat_template_utils.py of version 5), so that a prompt here is the prompt there. This file must not know models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

from jinja2 import Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from puma.errors import InputError

MOST_STEPS = 1_000_000  # of all loops of one rendering
MOST_WORDS = 200  # characters of a template's own complaint that are repeated
HINT = "look at the chat's roles and their order, or have a text continued, which takes no template"

_left: ContextVar[int] = ContextVar("steps that a rendering may still take")


class Refusal(TemplateError):
    """What a template says by raise_exception."""


class TooLong(TemplateError):
    """Loops that do not come to an end."""


class _Blocks(Extension):
    """`{% generation %}`, which marks and prints what an assistant said; and steps of loops, which are counted."""

    tags: ClassVar = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """A block whose variables are its own, as those of a call are."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("said"), [], [], body).set_lineno(line)

    def said(self, caller: Any) -> str:
        """The block's own text."""
        return caller()

    def step(self) -> bool:
        """One step of a loop; TooLong if there have been too many."""
        left = _left.get() - 1
        _left.set(left)
        if left < 0:
            raise TooLong(f"more than {MOST_STEPS:,} steps of loops")
        return True

    def counted(self, tree: nodes.Template) -> nodes.Template:
        """The same template, each of whose loops calls `step`, for what it leaves out by a condition, too."""
        for loop in tree.find_all(nodes.For):
            line = loop.lineno
            loop.body.insert(0, nodes.ExprStmt(self.call_method("step", lineno=line), lineno=line))
            if loop.test is not None:
                loop.test = nodes.And(self.call_method("step", lineno=line), loop.test, lineno=line)
        return tree


class _Dict:
    """`dict` without the attributes of a type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """As of dict."""
        return dict.fromkeys(*args)


class _Names(Namespace):
    """`namespace`, which keeps no names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *given = args
        found = dict(*given, **kwargs)
        for name in found:
            _plain_name(name)
        Namespace.__init__(self, found)

    def __setitem__(self, name: str, value: Any) -> None:
        _plain_name(name)
        super().__setitem__(name, value)


def _plain_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace keeps no name like {name!r}")


def rendered(template: str, variables: Mapping[str, Any]) -> str:
    """What the template makes of its variables, which are JSON's values; InputError if it refuses them or fails."""
    program = _compiled(template)
    token = _left.set(MOST_STEPS)
    try:
        return program.render(**variables)
    except Refusal as error:
        raise InputError(f"the model's chat template refuses this chat: {_short(error)}", HINT) from None
    except Exception as error:  # a stranger's program: whatever it does wrong is told in one way
        what = f"the model's chat template fails on this chat: {type(error).__name__}: {_short(error)}"
        raise InputError(what, HINT) from None
    finally:
        _left.reset(token)


@lru_cache(64)
def names(template: str) -> frozenset[str]:
    """The variables and the strings that a template names, such as `tools` or a role; InputError if it is none."""
    tree = _parsed(_environment(), template)
    try:
        variables = meta.find_undeclared_variables(tree)
    except TemplateSyntaxError as error:  # a filter that there is not
        raise _unreadable(error) from None
    strings = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    attributes = {node.attr for node in tree.find_all(nodes.Getattr)}
    return frozenset(variables | strings | attributes)


@lru_cache(64)
def _compiled(template: str) -> Template:
    environment = _environment()
    tree = _parsed(environment, template)
    blocks: _Blocks = environment.extensions[_Blocks.identifier]  # type: ignore[assignment]
    try:
        code = environment.compile(blocks.counted(tree))
    except (TemplateSyntaxError, RecursionError, SyntaxError, ValueError) as error:
        raise _unreadable(error) from None
    return Template.from_code(environment, code, environment.make_globals(None))


def _parsed(environment: ImmutableSandboxedEnvironment, template: str) -> nodes.Template:
    try:
        return environment.parse(template)
    except (TemplateSyntaxError, RecursionError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> InputError:
    what = f"the model's chat template cannot be read: {type(error).__name__}: {_short(error)}"
    return InputError(what, "have a text continued, which takes no template, or get a template that is whole")


def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Blocks, loopcontrols])
    made.globals |= {
        "raise_exception": _raise, "strftime_now": _now, "dict": _Dict(), "namespace": _Names,
    }  # fmt: skip
    made.filters["tojson"] = _json
    return made


def _raise(message: Any) -> str:
    raise Refusal(str(message))


def _now(format: str) -> str:
    """The local time of the machine that asks, not of a party."""
    return datetime.now().strftime(format)


def _json(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as it is; Jinja's own filter writes it for HTML."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS]}..."
