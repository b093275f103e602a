"""A model whose layers have a memory, through the engine of three parties: prompts together; beams are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from puma import LocalCluster
from puma.engine.dry_run import dry_run
from puma.errors import RangeError
from puma.models import with_layers
from puma.models.checkpoint import load
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Generate, Input
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


def test_what_a_dry_run_remembers_holds_memories(tmp_path: Path) -> None:
    """Two layers alike are counted once, and give what a model without the second one does not."""
    config = load(zoo.write(tmp_path, "qwen3.5")).config
    job = Generate(Input([5], []), tokens=3)
    whole, less = (sum(s.online for s in dry_run(c, job)[1]) for c in (config, with_layers(config, 2)))
    assert 0 < less < whole
