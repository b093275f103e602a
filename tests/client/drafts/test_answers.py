"""Answers with drafts are those without: on several kinds of models, for several prompts, where they end early, at the
client's choice and the parties', over sessions and in company."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from puma.client.answering.drafted import continued
from puma.client.batch import Batch
from puma.client.drafts.opening import opened
from puma.client.sampling import Sampling
from puma.errors import OutOfRange, ProtocolError, UsageError
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from tests.client.drafts.scripted import Scripted
from tests.models import tiny, zoo
from tests.threads import Threads

PROMPTS = [[2, 5, 7], [3], [4, 9, 6, 11, 8]]


def now_and_then(at: int, place: int) -> bool:
    return (at + place) % 3 == 2


def scripted(
    clear: PlainModel,
    prompts: list[list[int]],
    tokens: int,
    wrong: Any = now_and_then,
    most: int = 4,
    beside: bool = False,
) -> Any:
    answers = {tuple(ids): clear.greedy(ids, tokens + most + 1) for ids in prompts}
    return Scripted(answers, most, wrong, clear.config.vocab_size, beside)


def whole(steps: Iterator[list[list[int]]]) -> list[list[int]]:
    return [[token for new in mine for token in new] for mine in zip(*steps, strict=True)]


@pytest.mark.parametrize("name", ["mistral", "gemma2", "opt", "t5"])
def test_greedy_answers_on_several_families(name: str, tmp_path: Path) -> None:
    """Windows, soft caps, learned positions, and answers apart from prompts; three prompts, each at its own pace, with
    drafts one behind the other and side by side."""
    clear = PlainModel(zoo.write(tmp_path, name))
    with Threads() as trio:
        trio.share(clear.config, clear.params)
        for beside in (True, False):
            draft = scripted(clear, PROMPTS, 7, beside=beside)
            found = whole(continued(trio.session, PROMPTS, 7, draft, {}, Sampling()))
            assert found == [clear.greedy(ids, 7) for ids in PROMPTS]
        cost = trio.session.cost
    assert cost is not None and cost.drafts is not None and 0 < cost.drafts.accepted < cost.drafts.drafted
    assert cost.drafts.a_step > 1.3


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("drafts"), num_hidden_layers=1))


@pytest.fixture(scope="module")
def cluster(clear: PlainModel) -> Iterator[LocalCluster]:
    with Threads() as trio:
        yield LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]


def test_texts_end_early_and_each_by_itself(cluster: LocalCluster, clear: PlainModel) -> None:
    """A token that ends a text may be drafted, and what comes with it does not count."""
    answers = [clear.greedy(ids, 12) for ids in PROMPTS]
    ends = {answers[0][4], answers[1][2]}
    wanted = [ids[: next((i for i, t in enumerate(ids) if t in ends), 11) + 1] for ids in answers]
    for wrong in (lambda at, place: False, now_and_then, lambda at, place: True):
        draft = scripted(clear, PROMPTS, 12, wrong)
        assert whole(continued(cluster.session, PROMPTS, 12, draft, {}, Sampling(), [*ends])) == wanted
    assert len({len(ids) for ids in wanted}) > 1


def test_lookup_from_the_usual_calls(cluster: LocalCluster, clear: PlainModel) -> None:
    prompt, texts = "the cat sat on the mat the cat sat", ["the dog ran and the dog ran", "it was", "a big big big cat"]
    plain = [cluster.generate(each, 10) for each in (prompt, texts)]
    drafted = [cluster.generate(each, 10, draft="lookup") for each in (prompt, texts)]
    assert [plain[0].token_ids, *(a.token_ids for a in plain[1])] == [  # type: ignore[union-attr]
        drafted[0].token_ids, *(a.token_ids for a in drafted[1])  # type: ignore[union-attr]
    ]  # fmt: skip
    assert list(cluster.stream(prompt, 10, draft="lookup")) == plain[0].token_ids  # type: ignore[union-attr]
    cost = cluster.cost
    assert cost.drafts is not None and cost.drafts.steps <= 9 and cost.drafts.tokens == 9
    assert cluster.generate(prompt, 10, draft="lookup", lengths="secret").token_ids == plain[0].token_ids  # type: ignore[union-attr]
    assert cluster.generate(prompt, 1, draft="lookup").token_ids == plain[0].token_ids[:1]  # type: ignore[union-attr]


def test_the_clients_choice_with_a_seed_and_the_parties_noise(cluster: LocalCluster) -> None:
    """A prompt's copied drafts change no sample; at the parties' temperature a token that is drawn must agree."""
    how = {"temperature": 0.8, "top_k": 5, "seed": 3}
    prompt = "the cat sat on the mat the cat sat on"
    assert (
        cluster.generate(prompt, 9, draft="lookup", **how).token_ids == cluster.generate(prompt, 9, **how).token_ids  # type: ignore[arg-type]
    )
    revealed, cluster.session.reveals = cluster.session.reveals, False
    try:
        assert len(cluster.generate(prompt, 9, draft="lookup", temperature=0.5).token_ids) == 9
    finally:
        cluster.session.reveals = revealed


def test_a_stream_that_is_left_leaves_the_session_usable(cluster: LocalCluster, clear: PlainModel) -> None:
    ids = clear.prompt_ids("the cat sat on the mat the cat", 12)
    stream = cluster.stream_ids(ids, 12, draft="lookup")
    found = [next(stream), next(stream), next(stream)]
    stream.close()  # type: ignore[attr-defined]
    assert found == clear.greedy(ids, 3)
    assert list(cluster.stream_ids(ids, 5, draft="lookup")) == clear.greedy(ids, 5)


def test_prompts_join_and_leave_those_that_are_drafted(cluster: LocalCluster, clear: PlainModel) -> None:
    """With words about what counts between; some are drafted and some are not."""
    answers = [clear.greedy(ids, 12) for ids in PROMPTS]
    draft = scripted(clear, PROMPTS, 12)
    with Batch(cluster.session, drafts=8) as batch:
        first = batch.add(PROMPTS[:2], 9, draft=draft)
        found = {first: [[], []]}  # type: ignore[var-annotated]
        for step in range(99):
            if step == 2:
                late = batch.add([PROMPTS[2]], 6)
                found[late] = [[]]
            if step == 3:
                batch.drop(first, [1])
            if batch.empty:
                break
            for rows, new in batch.step().items():
                for i, tokens in new.items():
                    found[rows][i] += tokens
    assert found[first][0] == answers[0][:9] and found[late] == [answers[2][:6]]
    assert found[first][1] == answers[1][: len(found[first][1])] and len(found[first][1]) >= 3
    assert batch.counted.accepted > 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda m: msgspec.structs.replace(m, kept=[[0, 1]]), "which tokens"),
        (lambda m: msgspec.structs.replace(m, kept=[]), "which tokens"),
        (lambda m: msgspec.structs.replace(m, input=None), "chose no next tokens"),
        (lambda m: msgspec.structs.replace(m, input=msgspec.structs.replace(m.input, lengths=[9])), "or too many"),
    ],
)
def test_parties_refuse_words_that_make_no_sense(
    change: Any, error: str, clear: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = msg.encode
    with Threads() as trio:
        trio.share(clear.config, clear.params)
        draft = scripted(clear, PROMPTS[:1], 6)
        steps = continued(trio.session, PROMPTS[:1], 6, draft, {}, Sampling())
        next(steps)
        monkeypatch.setattr(msg, "encode", lambda m: real(change(m) if isinstance(m, msg.Pace) and m.more else m))
        with pytest.raises(ProtocolError, match=error):
            next(steps)


def test_what_takes_no_drafts(cluster: LocalCluster, clear: PlainModel, tmp_path: Path) -> None:
    for wrong in ("", 3, b"lookup"):
        with pytest.raises(UsageError, match="drafts cannot come from"):
            cluster.generate("the cat", 3, draft=wrong)
    for name, why in (("qwen3.5", "takes no drafts back"), ("roberta", "does not generate")):
        (tmp_path / name).mkdir()
        with pytest.raises(UsageError, match=why):
            opened("lookup", PlainModel(zoo.write(tmp_path / name, name)))
    with pytest.raises(UsageError, match="beam search"):
        cluster.search("the cat", 3, draft="lookup")


def test_a_number_out_of_range_in_a_wrong_draft_is_no_fault_of_the_answer(clear: PlainModel) -> None:
    """The step is done again without drafts; a loud token of the answer itself is refused as ever."""
    from tests.client.test_flagged import LOUD, QUIET, loud

    config, params = loud(clear, "model.embed_tokens.weight", "model.layers.0.input_layernorm")
    with Threads() as trio:
        trio.share(config, params)
        plain = [new for (new,) in trio.session.continued([QUIET], 4)]
        assert 7 not in plain
        draft = Scripted({tuple(QUIET): [plain[0], 7, 7, 7, 7], tuple(LOUD): [0] * 9}, 2, lambda at, place: False, 28)
        assert whole(continued(trio.session, [QUIET], 4, draft, {}, Sampling())) == [plain]
        with pytest.raises(OutOfRange):
            whole(continued(trio.session, [QUIET, LOUD], 4, draft, {}, Sampling()))
        assert [new for (new,) in trio.session.continued([QUIET], 2)] == plain[:2]
