"""Looking at a word of memory until it changes, compiled, without Python's lock: a thread that looks is there at once,
where one that sleeps is woken in some fifty microseconds, by a machine that may have to wake a core for it. After each
look it lets others have the core. It must not know what the word counts.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from puma.kernels.views import compiled

LOOKS = 1000  # some 300 us where nobody else wants the core
LATER = 10000  # reads of the word, some 10 us: as long does who has changed it keep Python's lock
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def watch(tell: int, word: int, seen: int) -> bool:
    """Whether the word at an address is another than it was seen to be, within some 300 us; before, what lies at the
    address `tell` is one more, unless that is 0. Who tells comes back a little later."""
    return _watch(tell, word, seen, LOOKS, LATER if tell else 0)


def _on(change: str) -> Any:
    """An intrinsic: the word at an address, as other threads see it, once it is one more if it is to `change`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = builder.inttoptr(values[0], _I64.as_pointer())
        if change:
            return builder.atomic_rmw("add", place, _I64(1), "seq_cst")
        return builder.load_atomic(place, "acquire", 8)

    @intrinsic
    def on(typing: Any, address):  # type: ignore
        return types.int64(types.int64), generate

    return on


def _giving() -> Any:
    """An intrinsic: others who can run do so first (POSIX)."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I32, []), "sched_yield")
        return builder.call(function, [])

    @intrinsic
    def give(typing: Any):  # type: ignore
        return types.int32(), generate

    return give


_more, _word, _give = _on("one more"), _on(""), _giving()


@compiled
def _watch(tell, word, seen, looks, later):
    if tell != 0:
        _more(tell)
    for _ in range(looks):
        if _word(word) != seen:
            for _ in range(later):
                _word(word)
            return True
        _give()
    return False
