"""`puma completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from puma.cli import ui
from puma.errors import UsageError

Shell = Literal["bash", "zsh", "fish"]
PLACES = {
    "bash": "~/.local/share/bash-completion/completions/puma",
    "zsh": "a folder of $fpath, as _puma",
    "fish": "~/.config/fish/completions/puma.fish",
}


def completion(shell: Shell | None = None, /) -> None:
    """Print a script that completes commands and options; where to put it is said on standard error.

    Parameters
    ----------
    shell
        bash, zsh or fish; the one in $SHELL if left out.
    """
    from puma.cli.app import app

    found = shell or Path(os.environ.get("SHELL", "")).name
    if found not in PLACES:
        raise UsageError(
            f"no completion for the shell {found or 'that $SHELL does not name'}", "name bash, zsh or fish"
        )
    ui.say(app.generate_completion(prog_name="puma", shell=found).rstrip())  # type: ignore[arg-type]
    ui.note(f"put it into {PLACES[found]}, and open a new shell")
