"""To which prompts the rows of a computation belong, for those who watch it, where it is not as usual.

It must not know what is computed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from puma.mpc.share import Secret
from puma.nn.layout import Rows


def belonging(x: Any, rows: Rows) -> AbstractContextManager[None]:
    """Meanwhile as many rows as these prompts have in all are theirs, one prompt's after the other's."""
    watch = x.party.on_watch if isinstance(x, Secret) else None
    if watch is None:
        return nullcontext()
    return watch.lying(torch.repeat_interleave(torch.arange(len(rows.lengths)), torch.tensor(rows.lengths)))
