"""`puma share --open-weights` to three daemons as processes: one of them has the checkpoint, the others are sent it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from puma.cli import app
from puma.errors import PumaError
from puma.reference.plain_model import PlainModel
from tests.live import Live, patiently
from tests.models import tiny
from tests.models.unfolded.test_laid import halved

pytestmark = [pytest.mark.slow, pytest.mark.processes]
PROMPT = "the cat sat"


def test_a_whole_life_of_open_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clear = PlainModel(halved(tiny.llama(tmp_path / "llama", num_hidden_layers=1), torch.bfloat16))
    folder = clear.checkpoint.folder
    wanted = clear.greedy(clear.prompt_ids(PROMPT, 3), 3)

    with Live(tmp_path, start=False) as live:
        there = ["--cluster", str(live.file), "--json", "--as"]
        alice, olga = [*there, str(live.key("alice"))], [*there, str(live.key("olga"))]

        def puma(*words: str) -> Any:
            assert app.run(words) == 0, capsys.readouterr()
            return json.loads(capsys.readouterr().out)

        for rank in range(3):
            live.start(rank, *(("--open-weights", str(folder)) if rank == 1 else ()))
        live.healthy()
        puma("share", str(folder), "--name", "open", "--open-weights", "--state", str(tmp_path / "state"), *olga)
        (card,) = puma("models", "list", *alice)["models"]
        assert card["name"] == "open"
        found = puma("generate", PROMPT, "--tokens", "3", "--model", "open", *alice)
        assert found["token_ids"] == wanted
        held = [sum(path.stat().st_size for path in live.store(rank).rglob("*") if path.is_file()) for rank in range(3)]
        numbers = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        assert min(held[1:]) - held[0] > numbers  # whoever was given the files keeps what it took out of them, too
        live.kill(2)
        with pytest.raises(PumaError), live.connect("open") as cluster:
            cluster.generate(PROMPT, 3)
        live.start(2)
        live.healthy()
        with patiently(live, "open") as cluster:
            assert cluster.generate(PROMPT, 3).token_ids == wanted
            assert cluster.generate(PROMPT, 3, draft="lookup").token_ids == wanted
        live.settled()
