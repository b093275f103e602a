"""A model whose layers have a memory, through the engine of three parties: prompts together; beams are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from puma import LocalCluster
from puma.errors import RangeError
from puma.reference.plain_model import PlainModel
from tests.models import zoo
from tests.threads import Threads


def test_answers_are_those_of_the_owner(tmp_path: Path) -> None:
    clear = PlainModel(zoo.write(tmp_path, "qwen3.5"))
    texts = ["the cat sat on the mat", "a dog", "it was red and they went home"]
    with Threads() as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        found = [answer.token_ids for answer in cluster.generate(texts, 4)]
        prompts = [clear.prompt_ids(text, 4) for text in texts]
        assert found == [list(tokens) for tokens in zip(*clear.session.continued(prompts, 4), strict=True)]
        with pytest.raises(RangeError, match=r"memory|hid|search"):
            cluster.search("the cat", 3, beams=2)
