"""An answer that may be wrong is no answer at the gateway: an error, the end of a stream, or, where it is taken all the
same, its finish_reason says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from puma.errors import OutOfRange, OutOfRangeWarning
from puma.gateway.refusals import refusal
from puma.models.formats import Formats
from tests.gateway.conftest import Served, openai, serving
from tests.models import tiny

QUIET, LOUD = "the cat", "a dog ran"
ASKED: dict[str, Any] = {"model": "tiny", "max_tokens": 3, "temperature": 0}


def made_loud(served: Served, table: str, place: str, ids: tuple[list[int], list[int]]) -> None:
    """From now on some token of the loud prompt has a row ten times as long as a norm's reach."""
    params = dict(served.clear.params)
    words = params[table].clone()
    words[next(token for token in ids[1] if token not in ids[0])] = torch.tensor([100.0, -100.0]).repeat(
        words.shape[1] // 2
    )
    vars(served.clear)["params"] = params | {table: words}
    served.clear.config = msgspec.structs.replace(served.clear.config, formats=Formats(places={place: 6}))


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tiny.llama(tmp_path_factory.mktemp("flagged"), num_hidden_layers=1)) as found:
        ids = found.clear.prompt_ids(QUIET, 3), found.clear.prompt_ids(LOUD, 3)
        made_loud(found, "model.embed_tokens.weight", "model.layers.0.input_layernorm", ids)
        yield found


def test_a_completion_is_refused_and_the_next_one_served(loud: Served) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="left its range") as error:
        loud.client.completions.create(prompt=[QUIET, LOUD], **ASKED)
    assert error.value.code == "out_of_range" and error.value.type == "out_of_range"
    answer = loud.client.completions.create(prompt=QUIET, **ASKED)
    assert answer.choices[0].finish_reason in ("length", "stop") and len(loud.clusters) == 1


def test_a_stream_ends_with_the_reason_and_an_error(loud: Served) -> None:
    seen = []
    with pytest.raises(openai.APIError, match="left its range") as error:
        for chunk in loud.client.completions.create(prompt=LOUD, stream=True, **ASKED):
            seen.append(chunk.choices[0])
    assert error.value.code == "out_of_range"
    assert seen[-1].finish_reason == "out_of_range" and not "".join(choice.text for choice in seen)


def test_a_chat(loud: Served) -> None:
    def asked(word: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": word}], **ASKED}

    with pytest.raises(openai.UnprocessableEntityError, match="left its range") as error:
        loud.client.chat.completions.create(**asked(LOUD))
    assert error.value.code == "out_of_range"
    seen = []
    with pytest.raises(openai.APIError, match="left its range"):
        for chunk in loud.client.chat.completions.create(stream=True, **asked(LOUD)):
            seen.append(chunk.choices[0])
    assert seen[-1].finish_reason == "out_of_range" and not any(choice.delta.content for choice in seen)
    loud.clusters[-1].out_of_range = "warn"
    try:
        answer = loud.client.chat.completions.create(**asked(LOUD))
    finally:
        loud.clusters[-1].out_of_range = "refuse"
    assert answer.choices[0].finish_reason == "out_of_range" and answer.choices[0].message.content
    assert loud.client.chat.completions.create(**asked(QUIET)).choices[0].finish_reason in ("length", "stop")


def test_a_fixed_length_is_refused_alike(tmp_path: Path) -> None:
    with serving(tiny.llama(tmp_path, num_hidden_layers=1), fixed=True) as found:
        ids = found.clear.prompt_ids(QUIET, 3), found.clear.prompt_ids(LOUD, 3)
        made_loud(found, "model.embed_tokens.weight", "model.layers.0.input_layernorm", ids)
        with pytest.raises(openai.UnprocessableEntityError):
            found.client.completions.create(prompt=LOUD, **ASKED)
        assert found.client.completions.create(prompt=QUIET, **ASKED).choices and len(found.clusters) == 1


def test_it_can_be_taken_and_says_so(loud: Served) -> None:
    loud.client.completions.create(prompt=QUIET, **ASKED)
    loud.clusters[-1].out_of_range = "warn"
    try:
        answer = loud.client.completions.create(prompt=[QUIET, LOUD], **ASKED)
    finally:
        loud.clusters[-1].out_of_range = "refuse"
    assert answer.choices[1].finish_reason == "out_of_range"
    assert answer.choices[0].finish_reason in ("length", "stop")


def test_embeddings(tmp_path: Path) -> None:
    with serving(tiny.bert(tmp_path)) as found:
        ids = found.clear.sentence_ids(QUIET).ids, found.clear.sentence_ids(LOUD).ids
        made_loud(found, "bert.embeddings.word_embeddings.weight", "bert.embeddings.LayerNorm", ids)
        with pytest.raises(openai.UnprocessableEntityError, match="prompt 2 of 2") as error:
            found.client.embeddings.create(model="tiny", input=[QUIET, LOUD])
        assert error.value.code == "out_of_range"
        assert found.client.embeddings.create(model="tiny", input=[QUIET]).data and len(found.clusters) == 1


def test_it_is_worded_for_people() -> None:
    found = refusal(OutOfRange("a number left its range", "look at it"))
    assert (found.status, found.code) == (422, "out_of_range") and found.headers == {"x-should-retry": "false"}
    assert issubclass(OutOfRangeWarning, UserWarning)
