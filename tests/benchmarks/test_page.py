"""From measurements to the page: medians, tables between markers, files that are read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import model_run, page, record


def answer(seconds: float, **more: Any) -> dict[str, Any]:
    part = {"name": "mlp", "seconds": seconds / 2, "rounds": 3, "bytes": 70}
    sent = {"total": 3 * 10**9, "online": 10**9}
    return {
        "prompt": 4, "tokens": 2, "layers": 1, "seconds": seconds, "cpu_seconds": 2 * seconds, "rounds": 1234,
        "prefill_seconds": seconds / 4,
        "peak_rss_mib": [seconds, 2.0, 3.0], "bytes": sent, "max_abs_error": 0.001 * seconds, "breakdown": [part],
    } | more  # fmt: skip


def test_medians() -> None:
    found = model_run.median([answer(3.0), answer(1.0), answer(2.0)])
    assert (found["seconds"], found["cpu_seconds"], found["runs"]) == (2.0, 4.0, 3)
    assert found["first_seconds"] == 0.5
    assert model_run.median([answer(1.0, tokens=None)])["first_seconds"] == 0
    assert found["peak_rss_mib"] == [3.0, 2.0, 3.0] and found["max_error"] == 0.003
    assert found["breakdown"] == [{"name": "mlp", "seconds": 1.0, "rounds": 3, "bytes": 70}]
    assert model_run.median([answer(1.0, max_abs_error=None)])["max_error"] is None


def test_a_command_that_fails_says_why() -> None:
    assert model_run._tried(["moon", "--prompt", "1"], 1) == {"error": "there is no preset moon"}


def test_tables() -> None:
    good = {"title": "a model", "command": "puma bench x"} | model_run.median([answer(2.0)])
    bad = {"title": "another", "command": "puma bench y", "error": "no memory"}
    first, second = page.models([good, bad]).splitlines()[2:]
    assert "| 2.00 | 0.50 | 4.00 | 1,234 | 3.000 | 1.000 | 0.002 | 2, 2, 3 | 1 |" in first
    assert "not measured: no memory" in second and second.count("|") == first.count("|")
    (_, _, row) = page.batch([{"batch": 4} | model_run.median([answer(2.0)])]).splitlines()
    assert row == "| 4 | 2.00 | 4.00 | 1,234 | 375.000 | 0.500 |"
    slow = {"model": "x", "prompt": 4, "tokens": None, "network": "wan", "rounds": 9, "seconds": 2.0}
    slow |= {"cpu_seconds": 3.0, "relay_cpu_seconds": 1.0, "predicted": 1.8, "on_three_machines": 1.5}
    (_, _, row) = page.networks([slow]).splitlines()
    assert row == "| x, 4 tokens | wan | 9 | 2.00 | 1.80 | 0.90 | 1.50 | 25 % |"

    request = {"network": "lan", "tls": True, "runs": 3, "session_seconds": 2.0, "first_seconds": 0.5}
    request |= {"tokens_a_second": 3.0, "together_a_second": 9.0, "gateway_first_seconds": 0.6, "gateway_seconds": 4.0}
    text = page.stack(
        {"tokens": 8, "requests": [request], "recovery": [{"party": "P0", "seconds": 5.0, "longest": 6.0}]}
    )
    assert "| lan, TLS | 30.0 | 0.50 | 3.00 | 9.00 | 0.60 | 4.00 | 3 |" in text and "| P0 | 5.00 | 6.00 |" in text
    phase = {"title": "x", "command": "puma bench x", "runs": 1, "seconds": 2.0, "cpu_seconds": 4.0, "rounds": 9}
    phase |= {"online_seconds": 1.0, "online_cpu_seconds": 1.5, "ahead_seconds": 1.2}
    (_, _, row) = page.phases([phase | {"kept_bytes": 2 * 10**9, "bytes": 10**9}]).splitlines()
    assert row == "| x: `puma bench x` | 2.00 | 4.00 | 1.00 | 1.50 | 1.20 | 2.000 | 9 | 1.000 | 1 |"


def test_the_page_has_room_for_every_part() -> None:
    text = page.PAGE.read_text()
    for part in page.PARTS:
        done = page.filled(text, part, "| new |")
        assert f"<!-- measured: {part} -->\n| new |\n<!-- /measured -->" in done
        assert page.filled(done, part, "| new |") == done
    assert set(page.PARTS) == set(page.TABLES)
    with pytest.raises(ValueError, match="no markers for moon"):
        page.filled(text, "moon", "")


def test_every_published_figure_is_one_that_was_measured() -> None:
    """The tables of the page and the figures of the README are what the files of measurements give."""
    measured = page.read(record.ROOT / "benchmarks" / "results")
    for part in set(page.PARTS) - {"models_avx2"} - set(measured):
        missing = (
            f"<!-- measured: {part} -->\nNot measured yet: `python -m benchmarks --only {part}`.\n<!-- /measured -->"
        )
        assert missing in page.PAGE.read_text()
    assert page.tables(measured) == page.PAGE.read_text()
    assert page.written(measured) == page.README.read_text()


def test_files(tmp_path: Path) -> None:
    assert record.read(tmp_path, "models") is None
    record.save(tmp_path / "new", "functions", {"gelu": {"curve": [[0.5, 1 / 3], [1.0, 2e-9]], "rounds": 4}})
    found = record.read(tmp_path / "new", "functions")
    assert found and found["results"] == {"gelu": {"curve": [[0.5, 0.333333], [1.0, 2e-9]], "rounds": 4}}
    assert {"machine", "kernel", "python", "torch", "date", "commit", "command"} <= set(found["about"])
    assert "[0.5, 0.333333]" in (tmp_path / "new" / "functions.json").read_text()


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import plots

    models = [{"title": "a model"} | model_run.median([answer(2.0)])]
    curve = {"gelu": {"title": "GeLU", "relative": False, "curve": [[0.0, 1e-4], [1.0, 2e-4]]}}
    measured = {"models": {"results": models}, "functions": {"results": curve}, "batch": {"results": [{"error": "no"}]}}
    assert plots.draw(measured, tmp_path) == ["time.png", "traffic.png", "errors.png"]
    assert all(path.stat().st_size < 60_000 for path in tmp_path.iterdir())


def test_open_weights_stand_beside_hidden_ones() -> None:
    spent = {"seconds": 4.0, "cpu_seconds": 8.0, "bytes": {"offline": 100, "online": 50}}
    less = {"seconds": 1.0, "cpu_seconds": 3.0, "bytes": {"offline": 70, "online": 49}}
    case = {"title": "x", "command": "puma bench x", "runs": 2, "hidden": spent, "open": less}
    folder = {"layers": 3, "bytes": 3 << 30, "mapped": 2 << 30, "opened_seconds": 1.5, "first_token_seconds": 20.0}
    text = page.open_weights({"cases": [case], "folder": folder | {"own": [1 << 29, 1 << 30, 1 << 30]}})
    assert "| 4.00 | 1.00 | 0.25 | 8.00 | 3.00 | 0.38 | 0.70 | 0.98 | 2 |" in text
    assert "with 3 layers, 3.0 GiB" in text and "20.0 s to the first token" in text and "0.50, 1.00, 1.00 GiB" in text


def test_how_many_times_as_long_as_plaintext() -> None:
    titles = (page.BERT, page.TOKEN)
    both = [{"title": title, "command": "puma bench x"} | model_run.median([answer(6.0)]) for title in titles]
    measured: dict[str, Any] = {"models": {"about": record.about("benchmarks"), "results": both}}
    assert "times plaintext" not in page.summary(measured)
    measured["plain"] = {"results": [{"title": page.BERT, "seconds": 0.125, "runs": 9}]}
    head, _, bert, token, *_ = page.summary(measured).splitlines()
    assert head.split(" | ")[2] == "times plaintext"
    assert [row.split(" | ")[2].strip() for row in (bert, token)] == ["48", ""]
    layer = {"cpu_seconds": 2.0, "megabytes": 4.0}
    measured["spu"] = {"results": [{"title": page.LAYER, "spu": layer, "puma": layer}]}
    measured["plain"]["results"].append({"title": page.TOKEN, "seconds": 0.5, "runs": 9})
    assert "Plaintext is 48 times as fast for BERT-base, and 12 times" in page.facts(measured)
    assert "| BERT-base, 128 tokens | 0.125 | 9 |" in page.plain(measured["plain"]["results"])


def test_the_plain_model_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_run, "PLAIN_RUNS", 1)
    (found,) = model_run.plain(1, True, lambda text: None)
    assert found["title"] == model_run.QUICK[0] and 0 < found["seconds"] < 60
