"""`puma store`: look at, or empty, what parties on this machine keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from puma.cli import ui
from puma.cli.options import HUMAN, Flag, Output


def store(*, store: Path | None = None, clear: Flag = False, delete: Flag = False, output: Output = HUMAN) -> None:
    """Show what a store holds: models, and requests that have been prepared.

    Parameters
    ----------
    store
        The folder; that below /dev/shm if left out.
    clear
        Throw away what has been prepared.
    delete
        Throw away the models, too.
    """
    from puma.local.inventory import default_folder, forget, look

    folder = store or default_folder()
    if clear or delete:
        forget(folder, models=delete)
    kept = look(folder)
    if output.json:
        found: dict[str, Any] = {"store": str(folder), "models": kept.models}
        ui.answer(found | {"prepared": kept.prepared, "preprocessing": kept.preprocessing})
        return
    rows = [["", "P0", "P1", "P2"]] + [[name, *map(ui.amount, sizes)] for name, sizes in kept.models.items()]
    one = "" if len(kept.models) == 1 else "s"
    ui.say(
        f"{folder}: {len(kept.models)} model{one}, {kept.prepared} prepared request{'' if kept.prepared == 1 else 's'}"
    )
    ui.table([*rows, ["preprocessing", *map(ui.amount, kept.preprocessing)]])
