"""Sessions that may be audited look like canaries: they ask nothing that no canary is like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from puma.client.beam_search import Beams
from puma.client.canaries import alike, asking
from puma.client.canaries.asking import ask_like
from puma.client.canaries.opening import commit
from puma.client.tokens.remembered import Remembered
from puma.errors import UsageError
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from puma.wire.messages import Encode, Generate, Input, Pace
from tests.models import tiny, zoo
from tests.threads import Threads

PROMPT = [1, 5, 6, 7, 8, 9, 10, 11, 12, 13]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    model = tiny.llama(tmp_path_factory.mktemp("llama") / "llama", num_hidden_layers=1)
    with closing(Threads()) as trio:
        cluster = LocalCluster(PlainModel(model), trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        commit(cluster.session)
        yield cluster


def drafted(cluster: LocalCluster) -> object:
    return cluster.generate("the cat", 4, draft="lookup")


def searched(cluster: LocalCluster) -> object:
    return list(cluster.session.search(PROMPT, Beams(2, 3)))


@pytest.mark.parametrize("ask", [drafted, searched])
def test_what_no_canary_is_like_is_refused_before_anything_leaves(
    ask: Callable[[LocalCluster], object], parties: LocalCluster
) -> None:
    links = parties.session.links
    before = [link.sent_bytes for link in links]
    with pytest.raises(UsageError, match="no canary could look like this request"):
        ask(parties)
    assert [link.sent_bytes for link in links] == before
    assert parties.generate("the cat", 1).token_ids, "and the session goes on"


def test_nothing_is_kept_under_secrets_that_may_be_disclosed(parties: LocalCluster) -> None:
    list(parties.session.continued([PROMPT], 2, memory=Remembered()))
    (word, *_) = parties.session.said
    assert isinstance(word, Generate) and not word.keep and word.prefix is None
    for kept in (Generate(Input([3], []), 2, keep=bytes(16)), Generate(Input([3], []), 2, drafts=2)):
        with pytest.raises(UsageError, match="no canary could look like"):
            alike.check(kept)
    alike.check(Encode(Input([3], []), "pooled"))


@pytest.mark.parametrize(
    "said",
    [
        [Generate(Input([3, 2], []), 3)],
        [Generate(Input([3], []), 5, paced=True), Pace(True), Pace(True), Pace(False)],
        [Generate(Input([2], []), 2, temperature=0.7)],
        [Generate(Input([2], []), 3, paced=True, reveal=True), Pace(True), Pace(False)],
        [Generate(Input([16], [], padded=True), 2)],
        [Generate(Input([3], [], quick=("maximum",)), 2)],
    ],
    ids=["plain", "paced", "drawn", "chosen", "padded", "planned"],
)
def test_a_canary_says_in_public_what_it_is_like(said: list[Any], parties: LocalCluster) -> None:
    session = parties.session
    first = said[0]
    session.variants = ",".join(first.input.quick) or "lean"
    ask_like(session, said)
    session.variants = "lean"
    found, *later = session.said
    assert isinstance(found, Generate) and isinstance(first, Generate)
    assert isinstance(bare := msg.public(first), Generate)
    quick = found.input.quick
    assert msg.bare(found) == msg.bare(bare) and quick == first.input.quick
    assert [word.more for word in later if isinstance(word, Pace)] == [word.more for word in said[1:]]


def test_what_is_made_up_holds_no_token_that_a_text_may_not_hold() -> None:
    one, other = asking._tokens(29, [400, 3], (3, None))
    assert {*one} == {*range(29)} - {3} and len(other) == 3


def test_answers_of_canaries_begin_as_those_of_the_request(tmp_path: Path) -> None:
    model = PlainModel(zoo.write(tmp_path, "bart"))
    with closing(Threads()) as trio:
        cluster = LocalCluster(model, trio=trio)  # type: ignore[arg-type]
        like = Generate(Input([5], [], begun=2), 2)
        ask_like(cluster.session, [like])
        assert msg.bare(cluster.session.said[0]) == like  # type: ignore[arg-type]


def test_files_are_read_at_once_and_once() -> None:
    read = list[str]()
    model: Any = type("Model", (), {})()
    model.files = {name: (lambda name=name: read.append(name) or name.encode()) for name in ("a", "b")}
    assert alike.read_whole(model) is model and read == ["a", "b"]
    assert [model.files[name]() for name in ("b", "a", "b")] == [b"b", b"a", b"b"] and read == ["a", "b"]
