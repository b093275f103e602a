"""Figures of the README, and of docs/models.md, that no file of measurements gives are counted again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from puma.measure.estimate import Estimate, usual
from puma.reference.plain_model import PlainModel
from tests.cli.conftest import Run

README = (Path(__file__).parents[2] / "README.md").read_text()


def number(text: str) -> int:
    return int(text.replace(",", ""))


def example() -> tuple[int, int, int]:
    """Tokens of its prompt and of its answer, and rounds."""
    words, tokens, rounds = re.findall(r'generate "(.+?)" --tokens (\d+).*?([\d,]+) rounds', README, re.DOTALL)[0]
    return len(PlainModel("stories").prompt_ids(words, number(tokens))), number(tokens), number(rounds)


def test_the_first_example_takes_the_rounds_that_it_shows(puma: Run) -> None:
    length, tokens, rounds = example()
    cost = puma("cost", "stories", "--prompt", length, "--tokens", tokens, "--network", "lan", "--json").json
    assert cost["rounds"] == rounds


@pytest.mark.slow
def test_the_first_example_takes_the_bytes_that_it_shows() -> None:
    """By the model's own plan, as it runs."""
    clear, (length, tokens, _) = PlainModel("stories"), example()
    clear.plan()
    cost = Estimate.of(clear.config, usual(clear.config, length, tokens)).whole
    (sizes,) = re.findall(r"([\d.]+) MiB online, ([\d.]+) MiB offline", README)
    assert [f"{size / 2**20:.1f}" for size in (cost.online, cost.offline)] == [*sizes]


LONG = README.partition("**Long prompts are dear**")[2].partition("\n\n")[0]
UNITS, SHORT = {"seconds": 1, "minutes": 60, "hours": 3600}, {"s": 1, "min": 60, "h": 3600}
BENCHMARKS = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text().partition("## Long prompts")[2]
TABLE = re.findall(
    r"\| ([\d,]+) \| ([\d.,]+) GB \| ([\d,]+) \| ([\d.]+) (s|min|h) \| ([\d.]+) (s|min|h) \|", BENCHMARKS
)


def test_long_prompts_take_the_traffic_and_the_time_that_it_says(puma: Run) -> None:
    """So does the table of docs/benchmarks.md, of a machine as that of its measurements."""
    traffic = re.findall(r"([\d,]+) GB\s+for\s+([\d,]+)", LONG)
    times = re.findall(r"(\d+) (seconds|minutes|hours)", LONG)
    assert len(traffic) == len(times) == len(TABLE) == 4 and "40 ms and 400 Mbps" in " ".join(LONG.split())
    for (gigabytes, length), (count, unit), row in zip(traffic, times, TABLE, strict=True):
        cost = puma("cost", "llama-3.1-8b", "--prompt", number(length), "--json").json
        sent, (lan, wan) = cost["first"]["bytes"]["total"] / 1e9, cost["networks"]
        assert round(sent) == number(gigabytes), length
        assert wan["first_seconds"] == pytest.approx(int(count) * UNITS[unit], rel=0.1), length
        assert (wan["rtt"], wan["rate"], number(row[0]), number(row[2])) == (0.04, 4e8, number(length), cost["rounds"])
        assert sent == pytest.approx(float(row[1].replace(",", "")), rel=0.01)
        for network, (amount, short) in zip((lan, wan), (row[3:5], row[5:]), strict=True):
            assert network["first_seconds"] == pytest.approx(float(amount) * SHORT[short], rel=0.05), row


MODELS = " ".join((Path(__file__).parents[2] / "docs" / "models.md").read_text().split())
TWO_PARTS = {
    r"a window and 20 tokens of whisper-tiny are ([\d.]+) GB": ("whisper-tiny", "--tokens", "20"),
    r"of whisper-small ([\d.]+) GB": ("whisper-small", "--tokens", "20"),
    r"a sentence of 32 tokens into 32 by opus-mt ([\d.]+) GB": ("opus-mt", "--prompt", "32", "--tokens", "32"),
    r"a text of 512 into 60 by bart-large-cnn ([\d.]+) GB": ("bart-large-cnn", "--prompt", "512", "--tokens", "60"),
}


def test_models_of_two_parts_take_what_is_said(puma: Run) -> None:
    for said, words in TWO_PARTS.items():
        (gigabytes,) = re.findall(said, MODELS)
        cost = puma("cost", *words, "--network", "lan", "--json").json
        assert f"{cost['bytes']['total'] / 1e9:.2g}" == gigabytes, words
        if rounds := re.findall(rf"{said} in all and ([\d,]+) rounds", MODELS):
            assert number(rounds[0][1]) == cost["rounds"]
