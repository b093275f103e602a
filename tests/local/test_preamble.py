"""A preamble that everybody knows: computed by the owner, shared like weights, and gone on from by every client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from puma.client.session import Session
from puma.client.tokens.remembered import Remembered
from puma.engine.admission import OWNER, admit
from puma.errors import RangeError, UsageError
from puma.local.cluster import LocalCluster
from puma.models import Cache, architecture, in_the_open
from puma.models.fields import PREAMBLE
from puma.reference import preamble
from puma.reference.plain_model import PlainModel
from puma.wire.beside import kept
from puma.wire.messages import Generate, Input, decode_request
from puma.wire.parameters import tensor_specs
from tests.models import tiny
from tests.threads import Threads

MESSAGE = "the cat sat on the mat and the dog ran"
WRITERS = {"llama": tiny.llama, "gpt2": tiny.gpt2}


def begun(kind: str, folder: Path) -> PlainModel:
    """A model with a preamble of ten tokens or so."""
    clear = PlainModel(WRITERS[kind](folder / kind))
    clear.begin_with(MESSAGE)
    return clear


def known(model: Any) -> tuple[int, ...]:
    """The preamble's tokens."""
    return model.config.preamble


@pytest.fixture(scope="module", params=WRITERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with Threads() as trio:
        yield LocalCluster(begun(request.param, tmp_path_factory.mktemp("models")), trio=trio)  # type: ignore[arg-type]


def asks(cluster: Any, text: str | list[int], memory: Remembered | None) -> tuple[list[int], int, int]:
    """The answer, how many tokens the parties had of the prompt, and the bytes that this client sent."""
    tokens = 4
    ids = cluster.model.prompt_ids(text, tokens) if isinstance(text, str) else text
    found = list(cluster.stream_ids(ids, tokens, memory=memory))
    assert found == cluster.model.greedy(ids, tokens)
    return found, cluster.session.held, cluster.session.cost.client


def test_a_prompt_that_begins_so_is_sent_and_computed_in_part(served: LocalCluster) -> None:
    text = f"{MESSAGE} home one day"
    _, held, less = asks(served, text, Remembered())
    assert held == len(known(served.model)) >= 9
    trio: Any = served._trio
    assert all(server.engine._preamble is None for server in trio.servers), "its words are there once"
    _, held, more = asks(served, text, None)  # who wants nothing kept tells nothing of how it begins
    assert held == 0 and more > less


@pytest.mark.parametrize("text", [MESSAGE, f"{MESSAGE.removesuffix(' ran')} saw it then", "one day the dog ran home"])
def test_who_begins_otherwise_tells_nothing(
    text: str, served: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Not even how many words of its prompt are the preamble's; and of a prompt at least one token is sent."""
    said, real = list[Any](), Session._both

    def heard(session: Session, parts: Any) -> None:
        said.extend(decode_request(message) for message, _ in parts)
        real(session, parts)

    monkeypatch.setattr(Session, "_both", heard)
    assert asks(served, text, Remembered())[1] == 0
    assert len(said) == 3 and all(each.keep and each.prefix is None for each in said)


def test_clients_share_it_and_conversations_go_on_behind_it(served: LocalCluster) -> None:
    clients = [served.another() for _ in range(3)]
    texts = [f"{MESSAGE} {end}" for end in ("home", "under it", "home")]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(asks, clients, texts, [Remembered() for _ in clients]))
    assert {held for _, held, _ in found} == {len(known(served.model))}
    memory = Remembered()
    answer, held, _ = asks(clients[0], texts[1], memory)
    second = [*served.model.prompt_ids(texts[1], 4), *answer, 7]
    _, further, _ = asks(clients[1], second, memory)
    assert held < further == len(second) - 2  # what is kept of the first turn, the preamble with it
    for client in clients:
        client.close()


def test_what_is_shared_is_what_a_run_would_have_kept(tmp_path: Path) -> None:
    clear = PlainModel(tiny.llama(tmp_path))
    plain = architecture(clear.config).model(clear.config, clear.plain)
    before = [spec.name for spec in tensor_specs(clear.config)]
    clear.begin_with(MESSAGE)
    specs = {spec.name: spec for spec in tensor_specs(clear.config) if spec.name not in before}
    assert specs.keys() == clear._preamble.keys() and all(name.endswith(PREAMBLE) for name in specs)
    assert all(tuple(clear.params[name].shape) == spec.shape and spec.frac == 14 for name, spec in specs.items())
    assert {*clear.params} == {*before, *specs} and clear.params[before[0]].shape
    cache = plain_cache(plain, known(clear))
    found = architecture(clear.config).model(clear.config, dict(clear.params)).preamble()
    for mine, theirs in zip(found.layers, cache.layers, strict=True):
        assert torch.allclose(mine.k, theirs.k, atol=1e-6) and torch.allclose(mine.v, theirs.v, atol=1e-6)
    clear.plan()
    assert known(clear) and clear.greedy(clear.prompt_ids("the cat", 3), 3)


def plain_cache(model: Any, ids: tuple[int, ...]) -> Any:

    cache = Cache(model.config.layers, [len(ids)])
    with torch.no_grad():
        model(torch.tensor(ids), cache)
    return cache


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    clear = begun("llama", tmp_path)
    size = len(known(clear))

    def asked(length: int, **more: Any) -> Generate:
        job = Generate(Input([3], []), 2, prefix=kept.Prefix(kept.PREAMBLE, length, **more))
        admit(clear.config, "spline", job, OWNER)
        return job

    job = asked(size)
    for wrong, how in ((size + 1, {}), (size - 1, {}), (0, {}), (size, {"last": True})):
        with pytest.raises(UsageError):
            asked(wrong, **how)
    with pytest.raises(UsageError, match="not one of puma"):
        paper = msgspec.structs.replace(job, input=msgspec.structs.replace(job.input, approximation="puma"))
        admit(clear.config, "puma", paper, OWNER)
    with pytest.raises(UsageError, match="no preamble"):
        in_the_open(clear.config)
    with pytest.raises(UsageError, match="saves nothing"):
        clear.begin_with("the cat")
    with pytest.raises(UsageError, match="does not generate"):
        PlainModel(tiny.bert(tmp_path / "bert")).begin_with(MESSAGE)
    config = preamble.with_preamble(PlainModel(tmp_path / "llama").config, (1, 2, 3))
    found = preamble.computed(config, clear.checkpoint.fold())
    preamble.check(config, found)
    name = f"model.layers.1.self_attn.preamble_values{PREAMBLE}"
    found[name] = found[name] + 500
    with pytest.raises(RangeError, match="in layer 1"):
        preamble.check(config, found)
