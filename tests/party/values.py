"""Messages whose every value fits its type and few of which make sense: what a stranger could say in good form."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

WORDS = [
    "", "a", "spline", "puma", "mpcformer", "hidden", "pooled", "logits", "tokens", "next logits", "tokenizer.json",
    "../up", "/etc/passwd", "a" * 256, "\x1b[2J", "\u202eevil", "decoder", "encoder", "w", ".", "\x00",
]  # fmt: skip
NUMBERS = [0, 1, 2, 3, 7, 16, 31, 32, 33, 64, 200, 255, 256, 4096, 65536, 1 << 20, 1 << 24, 1 << 31, 1 << 40, 1 << 62]
DEEP, SHORT = 3, 300  # so deep in a list of messages lists are short: what no frame holds is never heard
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan")]


def wild(kind: Any) -> st.SearchStrategy[Any]:
    """Values of this type as msgpack holds them, mostly at its edges."""
    return _of(inspect.type_info(kind), 0)


def _of(kind: inspect.Type, depth: int) -> st.SearchStrategy[Any]:
    if isinstance(kind, inspect.StructType):
        return _struct(kind, depth)
    if isinstance(kind, inspect.UnionType):
        return st.one_of([_of(each, depth) for each in kind.types])
    if isinstance(kind, inspect.IntType):
        low, high = kind.ge if kind.ge is not None else -(1 << 63), kind.le if kind.le is not None else (1 << 63) - 1
        edges = [n for n in {low, low + 1, high - 1, high, *NUMBERS, *(-n for n in NUMBERS)} if low <= n <= high]
        return st.sampled_from(sorted(edges, key=lambda n: (abs(n), n)))
    if isinstance(kind, inspect.StrType):
        return st.sampled_from([word for word in WORDS if kind.max_length is None or len(word) <= kind.max_length])
    if isinstance(kind, inspect.BytesType):
        sizes = {kind.min_length or 0, 16, 32, kind.max_length or 40}
        fits = [n for n in sorted(sizes) if (kind.min_length or 0) <= n <= (kind.max_length or n)]
        return st.sampled_from(fits).flatmap(lambda n: st.sampled_from([bytes(n), b"\xff" * n]))
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        most = kind.max_length or 1 << 16
        return _list(_of(kind.item_type, depth + 1), most if depth < DEEP else min(most, SHORT))
    if isinstance(kind, inspect.TupleType):
        return st.tuples(*(_of(each, depth + 1) for each in kind.item_types)).map(list)
    if isinstance(kind, inspect.DictType):
        return st.dictionaries(_of(kind.key_type, depth), _of(kind.value_type, depth), max_size=2)
    if isinstance(kind, inspect.LiteralType):
        return st.sampled_from(kind.values)
    if isinstance(kind, inspect.FloatType):
        return st.sampled_from(FLOATS)
    return {inspect.BoolType: st.booleans(), inspect.NoneType: st.none()}[type(kind)]


def _list(items: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[list[Any]]:
    """Short ones of different values, and long ones of one."""
    long = st.tuples(items, st.sampled_from([n for n in (5, 300, most) if n <= most])).map(lambda x: [x[0]] * x[1])
    return st.lists(items, max_size=min(3, most)) | long


def _struct(kind: inspect.StructType, depth: int) -> st.SearchStrategy[Any]:
    fields = {field.encode_name: _of(field.type, depth + 1) for field in kind.fields}
    if kind.array_like:
        return st.tuples(*fields.values()).map(list)
    needed = {name: fields[name] for field in kind.fields if (name := field.encode_name) and field.required}
    rest = {name: each for name, each in fields.items() if name not in needed}
    tag = {kind.tag_field or "type": kind.tag} if kind.tag is not None else {}
    return st.fixed_dictionaries(needed, optional=rest).map(lambda found: tag | found)


def spoiled(good: msgspec.Struct) -> st.SearchStrategy[Any]:
    """A message that makes sense, with wild values in one or two places."""
    content = msgspec.to_builtins(good, builtin_types=(bytes,))
    kind = inspect.type_info(type(good))
    assert isinstance(kind, inspect.StructType)
    return _spoiled(content, kind)


def _spoiled(content: dict[str, Any], kind: inspect.StructType) -> st.SearchStrategy[Any]:
    places = {field.encode_name: field.type for field in kind.fields}
    if not places:
        return st.just(content)

    def change(name: str) -> st.SearchStrategy[Any]:
        whole, inner = _of(places[name], 1), places[name]
        structs = [each for each in getattr(inner, "types", [inner]) if isinstance(each, inspect.StructType)]
        found = content.get(name)
        if structs and isinstance(found, dict):
            # Into the struct as it is: one of several is told by its tag.
            fits = next((s for s in structs if s.tag is None or found.get(s.tag_field or "type") == s.tag), structs[0])
            whole = _spoiled(found, fits) | whole
        return whole.map(lambda value: {name: value})

    one = st.sampled_from(sorted(places)).flatmap(change)
    changes = st.lists(one, min_size=1, max_size=2)
    return changes.map(lambda found: content | {name: value for each in found for name, value in each.items()})
