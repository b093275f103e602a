"""Examples to evaluate a model on: tables with named or numbered columns, texts, images.

It must not know shares or parties.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from puma.errors import UsageError
from puma.models.images import idx

BLANK_LINES = r"\n\s*\n"  # between the documents of a text


class Example(NamedTuple):
    """One text or two, an image's file or its bytes (height, width), and what is right, if the file says so."""

    texts: tuple[Any, ...]
    label: str = ""


def read_table(path: Path, text: Sequence[str], label: str | None, limit: int | None) -> list[Example]:
    """Rows of a .csv file, or of one whose columns lie between tabs.

    Columns are named by the first line, or numbered from 1: then the first line is an example, too.
    """
    quoted = path.suffix == ".csv"
    content, quoting = io.StringIO(_content(path), newline=""), csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    read = csv.reader(content, delimiter="," if quoted else "\t", quoting=quoting)
    try:
        rows = [row for row in read if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UsageError(
            f"{path} cannot be read ({error} in line {read.line_num})", "pass a table in TSV or CSV"
        ) from None
    if not rows:
        raise UsageError(f"{path} is empty", "pass a file with an example in each line")
    columns = [*text, *([label] if label else [])]
    if all(name.isdecimal() for name in columns):
        places = [int(name) - 1 for name in columns]
    else:
        names = rows.pop(0)
        places = [_place(path, names, name) for name in columns]
    short = next((i for i, row in enumerate(rows) if not 0 <= min(places) <= max(places) < len(row)), None)
    if short is not None:
        raise UsageError(f"{path} has too few columns in example {short + 1}", "check --text and --label")
    rows = rows if limit is None else rows[:limit]
    return [Example(tuple(row[i] for i in places[: len(text)]), row[places[-1]] if label else "") for row in rows]


def read_text(path: Path, split: str | None, limit: int | None) -> list[Example]:
    """The documents of a text, which lie between blank lines or between matches of a pattern."""
    try:
        documents = re.split(split or BLANK_LINES, _content(path))
    except re.error as error:
        raise UsageError(f"--split {split} is no pattern ({error})", "pass a regular expression") from None
    found = (Example((d.strip(),)) for d in documents if d and d.strip())
    return list(found if limit is None else islice(found, limit))


def read_images(path: Path, text: str | None, label: str | None, limit: int | None) -> list[Example]:
    """Images that a table names, relative to its folder; or two files in MNIST's format, `label` naming the second."""
    if label is None:
        raise UsageError("images need what is right", "pass --label COL, or --label FILE for MNIST's files")
    if text is not None:
        rows = read_table(path, [text], label, limit)
        return [Example((str(path.parent / row.texts[0]),), row.label) for row in rows]
    images, labels = idx(path, 3), idx(Path(label), 1)
    if len(images) != len(labels):
        raise UsageError(
            f"{len(images)} images do not go with {len(labels)} labels", "check which files belong together"
        )
    return [Example((image,), str(int(right))) for image, right in islice(zip(images, labels, strict=False), limit)]


def _place(path: Path, names: list[str], name: str) -> int:
    if name not in names:
        raise UsageError(
            f"{path} has no column {name}",
            f"its first line names {', '.join(names)}; number columns if it is an example",
        )
    return names.index(name)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error})", "pass a text file, or a table in TSV or CSV") from error
