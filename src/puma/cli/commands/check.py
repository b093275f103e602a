"""`puma check`: whether fixed point holds for a model, before anybody deploys it. The looking is measure's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from puma.cli import ui
from puma.cli.options import HUMAN, Count, Flag, Output, Profile
from puma.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from puma.measure.range_check import Findings
    from puma.mpc.clear import Note

SHOWN = 12  # places, those nearest to their limits


def check(
    model: str,
    /,
    *,
    adapter: str | None = None,
    data: Path | None = None,
    text: str | None = None,
    limit: Count = 20,
    approximation: Profile = "spline",
    all: Flag = False,
    output: Output = HUMAN,
) -> int:
    """Say whether a model's numbers stay within fixed point's limits, and which layer comes nearest.

    Parameters
    ----------
    model
        A checkpoint's folder, a GGUF file or a hub name.
    adapter
        A LoRA adapter to merge into it: a folder as peft writes it, or a name on the hub.
    data
        A text, or a table, to run the model on; a few sentences of many kinds if left out.
    text
        The column of a table, by name or number.
    limit
        Only so many texts of the file.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    all
        Show every place.
    """
    from puma.measure import range_check as checking
    from puma.reference.plain_model import PlainModel

    with ui.progress(output.json) as progress:
        clear = PlainModel(model, adapter)
        ui.left_aside(clear.checkpoint.beyond)
        texts = checking.SAMPLE if data is None else _texts(data, text, limit)
        prompts = checking.samples(clear, texts)
        if not prompts:
            raise UsageError(f"{clear.name} has no token for any of the texts", "pass a text of its own with --data")
        progress("computing in the clear", 0, 1)
        found = checking.check(clear, prompts, approximation)
    broken = found.broken
    if output.json:
        places = [asdict(note) | {"used": note.used} for note in found.notes]
        answer = {"model": clear.name, "holds": not broken, "texts": found.texts, "tokens": found.tokens}
        proofs = [asdict(proof) for proof in found.proofs]
        ui.answer(answer | ui.profile(approximation) | {"places": places, "proofs": proofs})
    else:
        _show(found, all)
    return CheckpointError.exit_code if broken else 0


def _texts(data: Path, text: str | None, limit: int) -> list[str]:
    from puma.measure.examples import read_table, read_text

    examples = read_text(data, None, limit) if text is None else read_table(data, [text], None, limit)
    return [example.texts[0] for example in examples]


def _show(found: Findings, every: bool) -> None:
    ui.say(f"{len(found.proofs)} bounds hold for every input; {found.texts} texts of {found.tokens} tokens computed")
    notes: list[Note] = sorted(found.notes, key=lambda note: -note.used)
    rows: list[Any] = [["place", "component", "what", "largest", "limit", "used"]]
    for note in notes if every else notes[:SHOWN]:
        used = f"{100 * note.used:.1f} %"
        rows.append([note.where, note.component, note.what, f"{note.largest:.5g}", f"{note.limit:.5g}", used])
    ui.table(rows)
    if found.broken:
        first = found.broken[0]
        ui.say(f"does not hold: the first place is {first.where}, {first.what} ({first.component})")
        ui.say("hint: use a checkpoint with smaller numbers there; docs/numerics.md names the limits")
    else:
        ui.say("holds: no number came beyond its limit")
