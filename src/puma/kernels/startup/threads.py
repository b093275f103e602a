"""How many threads a process computes with: those of the pool that kernels and key streams share. torch has one: its
own would wait for the same cores as the pool's, which look out for work for a while. It must not know who decides."""

from __future__ import annotations

import torch

from puma import pool


def use(count: int) -> None:
    """From now on so many, whoever calls; ValueError unless they are between 1 and `pool.MOST`."""
    pool.use(count)
    if count > 1:
        from puma.kernels.startup.watching import watch  # noqa: PLC0415  # the compiler takes a second

        pool.watching(watch)
    torch.set_num_threads(1)
