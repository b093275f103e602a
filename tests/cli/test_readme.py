"""Figures of the README that no file of measurements gives are counted again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from puma.reference.plain_model import PlainModel
from tests.cli.conftest import Run

README = (Path(__file__).parents[2] / "README.md").read_text()


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_first_example_takes_the_rounds_that_it_shows(puma: Run) -> None:
    words, tokens, rounds = re.findall(r'generate "(.+?)" --tokens (\d+).*?([\d,]+) rounds', README, re.DOTALL)[0]
    length = len(PlainModel("stories").prompt_ids(words, number(tokens)))
    cost = puma("cost", "stories", "--prompt", length, "--tokens", tokens, "--network", "lan", "--json").json
    assert cost["rounds"] == number(rounds)


@pytest.mark.slow
def test_long_prompts_take_the_traffic_that_it_says(puma: Run) -> None:
    said = re.findall(r"([\d,]+) GB\s+for\s+([\d,]+)", README.partition("**Long prompts are dear**")[2])
    assert len(said) == 4
    for gigabytes, length in said:
        cost = puma("cost", "llama-3.1-8b", "--prompt", number(length), "--network", "lan", "--json").json
        assert round(cost["first"]["bytes"]["total"] / 1e9) == number(gigabytes), length
