"""A gateway before a GGUF file: its own template asks, its own tokens end an answer, its bytes are text."""

from __future__ import annotations

from pathlib import Path

import pytest

from puma.gateway.settings import short_name
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from tests.gateway.conftest import serving
from tests.models.files import talking
from tests.threads import Threads

ASKED = [{"role": "user", "content": "the cat"}]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking.write(tmp_path_factory.mktemp("gguf"), num_hidden_layers=1)


def test_chat(file: Path) -> None:
    with serving(file) as found:
        clear = found.clear
        ids = clear.prompt_ids("<|im_start|>the cat<|im_end|>", 4, special=False)
        plain = clear.greedy(ids, 4)
        assert clear.eos == (2,) and 2 not in plain
        answer = found.client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=4, temperature=0)
        assert answer.choices[0].message.content == clear.decode(plain)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.prompt_tokens == len(ids)
        parts = found.client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=4, stream=True)
        assert "".join(part.choices[0].delta.content or "" for part in parts) == clear.decode(plain)
        text = found.client.completions.create(model="tiny", prompt="the cat", max_tokens=3, temperature=0)
        assert text.choices[0].text == clear.decode(clear.greedy(clear.prompt_ids("the cat", 3), 3))
    assert short_name(file) == "chatty"


def test_a_cluster(file: Path) -> None:
    for source in (file, file.parent, PlainModel(file)):
        with Threads() as trio:
            cluster = LocalCluster(source, trio=trio)  # type: ignore[arg-type]
            ids = cluster.model.prompt_ids("the cat", 2)
            assert cluster.generate("the cat", 2).token_ids == cluster.model.greedy(ids, 2)
            assert cluster.model.name == ("alone" if source == file.parent else "chatty")
