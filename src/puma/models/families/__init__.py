"""Families: how checkpoints say what an architecture computes, as data; by the name in "architectures" of config.json.

A file holds the dialects that resemble each other. To add one, see docs/models.md.
"""

from __future__ import annotations

from typing import Any

from puma.models.families import bert, gpt, llama, patches, t5, vit
from puma.models.family import Family

FAMILIES: dict[str, Family] = (
    llama.families() | gpt.families() | bert.families() | t5.families() | vit.families() | patches.families()
)


def named(raw: dict[str, Any]) -> str:
    """The family that a config.json names or describes."""
    described = patches.NAME if patches.described(raw) else "no architecture"
    return (raw.get("architectures") or [described])[0]
