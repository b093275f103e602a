"""A model's tokenizer and template, as a client of live parties sees them the first time and later."""

from __future__ import annotations

from pathlib import Path

import pytest

from puma.client.chat.format import chat_format
from puma.client.connect import connect
from puma.errors import UsageError
from tests.live import Live
from tests.models import tiny

pytestmark = pytest.mark.processes


def test_another_template_is_refused_until_it_is_accepted(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "llama", num_hidden_layers=1)
    own = tiny.llama(tmp_path / "own", num_hidden_layers=1)
    with Live(tmp_path) as live:
        live.share(folder, "tiny")
        record = tmp_path / "mine" / "seen.json"
        seen = []
        for _ in range(2):
            with connect(live.cluster, "tiny", live.key("alice"), record=record) as cluster:
                seen.append(cluster.seen)
                answer = cluster.generate("the cat", 2).token_ids
        (folder / "chat_template.jinja").write_text("{{ messages[0].content }} pad pad")
        live.share(folder, "tiny", version="2")
        with pytest.raises(UsageError, match=r"its chat_template.jinja and weights changed") as failure:
            connect(live.cluster, "tiny", live.key("alice"), record=record)
        assert "accept_changes=True" in failure.value.hint
        with pytest.raises(UsageError, match="its weights were shared anew"):
            connect(live.cluster, "tiny", live.key("alice"), record=record, tokenizer=own)
        how = {"record": record, "tokenizer": own, "accept_changes": True}
        with connect(live.cluster, "tiny", live.key("alice"), **how) as cluster:  # type: ignore[arg-type]
            seen.append(cluster.seen)  # none of the owner's files is used: what was seen of them stays as it was
            assert not chat_format(cluster.model).templated
            assert cluster.generate("the cat", 2).token_ids == answer
        with connect(live.cluster, "tiny", live.key("alice"), record=record, accept_changes=True) as cluster:
            seen.append(cluster.seen)
            assert chat_format(cluster.model).templated
    assert seen == ["new", "same", "changed", "changed"]
