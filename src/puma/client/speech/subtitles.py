"""What is said and when, as files of subtitles have it: SubRip and WebVTT. It must not know who hears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """A part of what is said, from `start` to `end` in seconds, and its tokens."""

    start: float
    end: float
    text: str
    token_ids: list[int]


def srt(parts: Sequence[Said]) -> str:
    """SubRip: numbered parts."""
    return "\n".join(f"{i}\n{_span(part, ',')}\n{_line(part)}\n" for i, part in enumerate(parts, 1))


def vtt(parts: Sequence[Said]) -> str:
    """WebVTT (W3C, section 1.1)."""
    return "WEBVTT\n\n" + "\n".join(f"{_span(part, '.')}\n{_line(part)}\n" for part in parts)


def clock(seconds: float, point: str = ".") -> str:
    """Hours, minutes, seconds and thousandths."""
    whole = round(seconds * 1000)
    return f"{whole // 3600000:02}:{whole // 60000 % 60:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"


def _line(part: Said) -> str:
    """Its text, in which nothing looks like the end of a part or the times of another."""
    return " ".join(part.text.split()).replace("-->", "->")


def _span(part: Said, point: str) -> str:
    return f"{clock(part.start, point)} --> {clock(part.end, point)}"
