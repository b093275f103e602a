"""`puma demo`: what each role sees, shown on words that were really shared, and a story by three parties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from puma.cli import ui
from puma.cli.commands.ask.generate import generate
from puma.cli.options import Count, Flag

if TYPE_CHECKING:
    from puma.reference.plain_model import PlainModel

PROMPT = "Once upon a time, there was a little girl named"
WORDS, BYTES = 4, 4  # of a row that are shown
HELD = (("P0", "l1", "l2"), ("P1", "m", "l1"), ("P2", "m", "l2"))

OPENING = """\
Puma lets three parties run a Transformer on a prompt that none of them can read, with weights
that none of them knows. The model here writes children's stories.
"""
WEIGHTS = """\
The model's owner turns every weight into three whole numbers modulo 2^{ring}, with m - l1 - l2 the
weight times 2^{frac}. Each party gets two of the three; any two are just random numbers.
The first weights of {name}:
"""
ROW = """\
Each party now holds two of three tables, and each table lies at two parties. Your prompt is

  {prompt!r}

of {count} tokens. For each of them you give the two holders of a table random bits, one bit a row, the
same bits to both but for one: that of the token. They add up the rows whose bit is 1, and the
difference of their sums is the token's row. For token number {index}, {token!r}, these are the
bits of rows {start} to {end}:
"""
CLOSING = """\
Whoever holds one copy sees coins. Two parties who put their heads together would see it all:
that they do not is what Puma asks of you to arrange, by giving them to different hands.

Now three processes continue the prompt. You alone put their answers together:
"""


def demo(*, tokens: Count = 40, debug: Flag = False) -> None:
    """Show what each party sees of a prompt, then let three of them continue it with the embedded model.

    Parameters
    ----------
    tokens
        How many tokens to generate.
    debug
        Show the stack of an error.
    """
    from puma.reference.plain_model import PlainModel

    clear = PlainModel()
    ids = clear.prompt_ids(PROMPT, tokens)
    ui.say(OPENING)
    _weights(clear)
    _prompt(clear, ids)
    ui.say(CLOSING)
    generate(PROMPT, tokens=tokens, compare=True)


def _weights(clear: PlainModel) -> None:
    """Share a few weights as the owner does, under fresh seeds."""
    import torch

    from puma import kernels
    from puma.crypto.prg import PairKey, fresh_secret
    from puma.mpc.seeded import rest_bytes
    from puma.wire.parameters import tensor_specs

    spec = tensor_specs(clear.config)[0]
    weights = clear.params[spec.name].reshape(-1)[:WORDS]
    size = rest_bytes((WORDS,), spec.bits)
    pads = [PairKey(fresh_secret()).stream("demo").bytes(size) for _ in range(2)]
    m = torch.empty(size, dtype=torch.uint8)
    kernels.pack_masked(weights.double(), spec.frac, (pads[0], pads[1]), spec.bits, m)
    packed = {"m": m, "l1": pads[0], "l2": pads[1]}
    share = {name: kernels.unpack_bytes(row, spec.bits, (WORDS,)) for name, row in packed.items()}
    ui.say(WEIGHTS.format(ring=spec.bits, frac=spec.frac, name=spec.name))
    _line("owner", "", " ".join(f"{float(weight):>16.6f}" for weight in weights))
    for party, *names in HELD:
        for i, name in enumerate(names):
            _line(party if i == 0 else "", name, " ".join(f"{int(word):>16}" for word in share[name]))
    ui.say()


def _prompt(clear: PlainModel, ids: list[int]) -> None:
    """Share the prompt as a client does, under fresh seeds, and let each party receive its part."""
    from puma.mpc.party import Party
    from puma.wire.prompt import receive_choice, share_input

    size, place = clear.config.vocab_size, min(1, len(ids) - 1)  # the first token may only mark the beginning
    index = ids[place]
    parts = [
        receive_choice(Party(rank, {}, {}), part, len(ids), size).bits
        for rank, part in enumerate(share_input(ids, size))
    ]
    first = max(0, min(index // 8 - BYTES // 2, parts[0][0].shape[1] - BYTES))
    rows = range(8 * first, 8 * (first + BYTES))
    names = {"prompt": PROMPT, "count": len(ids), "token": clear.decode([index]), "index": index}
    ui.say(ROW.format(**names, start=rows.start, end=rows.stop - 1))
    _line("you", "", "".join("1" if row == index else "." for row in rows))
    for (party, *tables), held in zip(HELD, parts, strict=False):
        for i, (name, bits) in enumerate(zip(tables, held, strict=False)):
            _line(party if i == 0 else "", name, _bits(bits[place], rows))
    ui.say()


def _bits(packed: Any, rows: range) -> str:
    return "".join(str(int(packed[row // 8]) >> row % 8 & 1) for row in rows)


def _line(who: str, what: str, content: str) -> None:
    ui.say(f"  {who:<6} {what:<3} {content}".rstrip())
