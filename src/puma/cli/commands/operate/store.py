"""`puma store`: look at, or empty, what parties on this machine keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from puma.cli import ui
from puma.cli.options import HUMAN, Flag, Output
from puma.errors import UsageError


def store(
    *, store: Path | None = None, clear: Flag = False, delete: Flag = False, model: str = "", output: Output = HUMAN
) -> None:  # fmt: skip
    """Show what a store holds: models, and requests that have been prepared.

    Parameters
    ----------
    store
        The folder of a local cluster, or of one party; that below /dev/shm if left out.
    clear
        Throw away what has been prepared.
    delete
        Throw away the models, too, whoever brought them; not while a party serves from there.
    model
        With --delete: this model only.
    """
    from puma.local.inventory import default_folder, forget, look

    folder = store or default_folder()
    if model and not delete:
        raise UsageError("--model is for deleting one model", "add --delete, or leave it out")
    if clear or delete:
        forget(folder, models=delete, only=model)
    kept = look(folder)
    if output.json:
        found: dict[str, Any] = {"store": str(folder), "models": kept.models}
        ui.answer(found | {"prepared": kept.prepared, "preprocessing": kept.preprocessing})
        return
    rows = [["", *kept.parties]] + [[name, *map(ui.amount, sizes)] for name, sizes in kept.models.items()]
    one = "" if len(kept.models) == 1 else "s"
    ui.say(
        f"{folder}: {len(kept.models)} model{one}, {kept.prepared} prepared request{'' if kept.prepared == 1 else 's'}"
    )
    ui.table([*rows, ["preprocessing", *map(ui.amount, kept.preprocessing)]])
