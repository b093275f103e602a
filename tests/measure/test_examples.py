"""Examples as files hold them, and the measures that judge answers."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

from puma.errors import InputError, UsageError
from puma.measure import evaluation
from puma.measure import scores as measures
from puma.measure.examples import Example, read_images, read_table, read_text


def test_columns_by_name_and_by_number(tmp_path: Path) -> None:
    named, bare = tmp_path / "named.tsv", tmp_path / "bare.tsv"
    named.write_text('sentence1\tsentence2\tlabel\na "b\tc, d\t1\n\ne\tf\t0\n')
    bare.write_text("good film\t1\nbad film\t0\n")
    assert read_table(named, ["sentence1", "sentence2"], "label", None) == [
        Example(('a "b', "c, d"), "1"),
        Example(("e", "f"), "0"),
    ]
    assert read_table(named, ["sentence2"], None, 1) == [Example(("c, d",))]
    assert read_table(bare, ["1"], "2", None)[1] == Example(("bad film",), "0")
    quoted = tmp_path / "pairs.csv"
    quoted.write_text('"One, two.",Three.,4.5\n')
    assert read_table(quoted, ["1", "2"], "3", None) == [Example(("One, two.", "Three."), "4.5")]


def test_lines_end_where_the_format_says_so(tmp_path: Path) -> None:
    """Quoted texts have several; and what Unicode calls a line end is a sign in a text like others."""
    quoted, bare = tmp_path / "quoted.csv", tmp_path / "bare.tsv"
    quoted.write_text('"Good.\n\nVery.",1\nBad.,0\n')
    assert read_table(quoted, ["1"], "2", None) == [Example(("Good.\n\nVery.",), "1"), Example(("Bad.",), "0")]
    bare.write_text("so\u2028so\x85\t1\r\n", encoding="utf-8")
    assert read_table(bare, ["1"], "2", None) == [Example(("so\u2028so\x85",), "1")]
    quoted.write_text("a" * 200000)
    with pytest.raises(UsageError, match="in line 1"):
        read_table(quoted, ["1"], None, None)


@pytest.mark.parametrize(
    ("content", "columns", "says"),
    [("a\tb\n1\t2\n", ["c"], "has no column c"), ("a\tb\n", ["3"], "too few columns"), ("", ["1"], "is empty"),
     ("a\tb\n1\t2\n", ["0"], "too few columns"), ("a\tb\n1\t2\n", ["\u00b2"], "has no column")],
)  # fmt: skip
def test_mistaken_tables(content: str, columns: list[str], says: str, tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(content)
    with pytest.raises(UsageError, match=says):
        read_table(path, columns, None, None)


@pytest.mark.parametrize("label", ["2", "\u00b2", "-1", "1.0", ""])
def test_labels_that_name_no_class(label: str) -> None:
    model: Any = SimpleNamespace(labels=["bad", "good"])
    assert [evaluation._class(model, name) for name in ("good", "0", "\u0661")] == [1, 0, 1]
    with pytest.raises(UsageError, match="is no class of the model"):
        evaluation._class(model, label)


@pytest.mark.parametrize("label", ["nan", "-inf", "good", ""])
def test_scores_are_numbers(label: str) -> None:
    """One that is none would make a correlation none, without a word of why."""
    assert evaluation._number("-4.5e0") == -4.5
    with pytest.raises(UsageError, match="is no score"):
        evaluation._number(label)


def test_documents(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("One\nline.\n\nTwo.\n \nThree.\n")
    assert [e.texts[0] for e in read_text(path, None, None)] == ["One\nline.", "Two.", "Three."]
    assert [e.texts[0] for e in read_text(path, r"\n(?=Three)", 1)] == ["One\nline.\n\nTwo."]
    with pytest.raises(UsageError, match="is no pattern"):
        read_text(path, "(", None)
    with pytest.raises(UsageError, match="cannot be read"):
        read_text(tmp_path / "none", None, None)


def test_measures() -> None:
    assert measures.accuracy([1, 0, 1, 1], [1, 0, 0, 1]) == 0.75
    assert measures.matthews([1, 0, 1, 1], [1, 0, 0, 1]) == pytest.approx(1 / 3**0.5)
    assert measures.matthews([1, 1], [1, 0]) == 0 and measures.matthews([0, 1, 2], [0, 1, 2]) == 1
    assert measures.ranks([3.0, 1.0, 3.0, 2.0]) == [2.5, 0.0, 2.5, 1.0]
    assert measures.spearman([1, 2, 3, 4], [10, 20, 30, 5]) == pytest.approx(-0.2)
    assert measures.spearman([1, 5, 9], [1, 25, 81]) == pytest.approx(1) and measures.pearson([1, 1], [1, 2]) == 0


def mnist(folder: Path, images: numpy.ndarray, labels: bytes) -> tuple[Path, Path]:
    """Files in MNIST's format, the first one gzipped."""
    one, two = folder / "images.gz", folder / "labels"
    head = bytes([0, 0, 8, 3]) + numpy.array(images.shape, ">u4").tobytes()
    one.write_bytes(gzip.compress(head + images.tobytes()))
    two.write_bytes(bytes([0, 0, 8, 1]) + len(labels).to_bytes(4, "big") + labels)
    return one, two


def test_images(tmp_path: Path) -> None:
    images = numpy.arange(24, dtype=numpy.uint8).reshape(2, 3, 4)
    one, two = mnist(tmp_path, images, bytes([7, 1]))
    found = read_images(one, None, str(two), None)
    assert [e.label for e in found] == ["7", "1"]
    assert (found[1].texts[0] == images[1]).all()
    assert len(read_images(one, None, str(two), 1)) == 1
    table = tmp_path / "t.csv"
    table.write_text("file,class\na.png,3\n")
    assert read_images(table, "file", "class", None) == [Example((str(tmp_path / "a.png"),), "3")]
    with pytest.raises(UsageError, match="what is right"):
        read_images(one, None, None, None)
    with pytest.raises(InputError, match="no images in MNIST"):
        read_images(two, None, str(two), None)
    with pytest.raises(InputError, match="cannot be read"):
        read_images(tmp_path / "none.gz", None, str(two), None)
    with pytest.raises(UsageError, match="do not go with 3 labels"):
        read_images(one, None, str(mnist(tmp_path, images, bytes(3))[1]), None)
    one.write_bytes(b"")
    with pytest.raises(InputError, match="MNIST"):
        read_images(one.rename(tmp_path / "empty"), None, str(two), None)
