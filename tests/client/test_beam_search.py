"""Beam search: transformers' answers by plain tensors, the same by three parties, and what they may see of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from puma.client.beam_search import Beams
from puma.config import Policy
from puma.engine.admission import OWNER, admit
from puma.engine.dry_run import dry_run
from puma.errors import AdmissionError, PolicyError, ProtocolError, RangeError, UsageError
from puma.local.cluster import LocalCluster
from puma.models import Cache
from puma.models.checkpoint import load
from puma.models.ranges import check_hiding
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from tests.live import Live
from tests.models import zoo
from tests.models.plain import one_hot, open_model, usual
from tests.threads import Threads

IDS = [2, 5, 7, 9, 27]
MODELS = ["t5", "t5-gated", "bart", "marian", "qwen3", "gemma2", "mistral", "opt", "neox"]


def transformers_answer(folder: Path, beams: int, tokens: int, ends: list[int], penalty: float) -> list[int]:
    import transformers

    name, _ = zoo.ALL[folder.name]
    model = getattr(transformers, name).from_pretrained(folder).eval()
    found = model.generate(
        torch.tensor([IDS]), attention_mask=torch.ones(1, len(IDS), dtype=torch.long), num_beams=beams, do_sample=False,
        max_new_tokens=tokens, eos_token_id=ends or None, pad_token_id=0, length_penalty=penalty, early_stopping=False,
        use_cache=not name.startswith("T5"),  # which fails where encoder and decoder differ in depth
    )[0].tolist()  # fmt: skip
    found = found[1:] if model.config.is_encoder_decoder else found[len(IDS) :]
    last = next((i for i, token in enumerate(found) if token in ends), len(found))
    return found[: last + 1]


@pytest.mark.parametrize("name", MODELS)
def test_it_finds_what_transformers_finds(name: str, tmp_path: Path) -> None:
    checkpoint = load(zoo.write(tmp_path / name, name))
    plain, ended = Plain(checkpoint.config, checkpoint.fold()), 0
    ends = [one for (one,) in plain.continued([IDS], 4)][2:]  # tokens that it likes
    for beams, tokens, stops, penalty in ((3, 6, [], 1.0), (4, 8, ends, 1.0), (2, 8, ends, 0.0), (4, 7, ends, 2.0)):
        found = Beams(beams, tokens, stops, penalty)
        list(plain.search(IDS, found, stop=True))
        assert found.best == transformers_answer(tmp_path / name, beams, tokens, stops, penalty)
        ended += bool(stops) and found.best[-1] in stops
    assert ended, "no text has come to an end"


@pytest.mark.filterwarnings("ignore:.*:UserWarning:transformers")
@pytest.mark.parametrize("name", ["bart", "qwen3"])
def test_it_follows_the_models_rules(name: str, tmp_path: Path) -> None:
    """And the last token of a text that has not ended is the one that its files say."""
    import transformers

    folder = zoo.write(tmp_path / name, name)
    said = {"no_repeat_ngram_size": 2, "min_new_tokens": 3, "suppress_tokens": [9], "forced_eos_token_id": 5}
    special = {"eos_token_id": 5, "pad_token_id": 0, "decoder_start_token_id": 0, "bos_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(said | special))
    clear = PlainModel(folder)
    model = getattr(transformers, zoo.ALL[name][0]).from_pretrained(folder).eval()
    for tokens, penalty in ((4, 1.0), (7, 2.0)):
        theirs = model.generate(
            torch.tensor([IDS]), attention_mask=torch.ones(1, len(IDS), dtype=torch.long), num_beams=3, do_sample=False,
            max_new_tokens=tokens, length_penalty=penalty, early_stopping=False,
        )[0].tolist()  # fmt: skip
        theirs = theirs[1:] if model.config.is_encoder_decoder else theirs[len(IDS) :]
        found = clear.searching(IDS, 3, tokens, penalty)
        list(clear.session.search(IDS, found, stop=True))
        assert found.best == theirs[: len(found.best)] and found.best[-1] == 5


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(zoo.write(tmp_path_factory.mktemp("beams"), "t5"))


@pytest.mark.parametrize("name", ["t5-gated", "bart", "mistral", "gemma2"])
def test_three_parties_find_the_same(name: str, tmp_path: Path) -> None:
    clear = PlainModel(zoo.write(tmp_path, name))
    expected = Beams(3, 5, clear.eos)
    ids = clear.prompt_ids("the cat sat", 5)
    list(clear.session.search(ids, expected, stop=True))
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        found = cluster.search("the cat sat", 5, beams=3)
        assert found.token_ids == expected.best and found.text == cluster.decode(expected.best)
        job = msg.Generate(msg.Input([len(ids)], [], []), 5, reveal=True, paced=True, beams=3)
        dry = dry_run(clear.config, job)
        assert [sum(s.online + s.offline for s in party) for party in dry] == found.cost.per_party
        assert cluster.generate("the cat sat", 3).token_ids == clear.greedy(ids, 3)  # the session goes on


def test_it_ends_early_only_if_asked(clear: PlainModel) -> None:
    ids = clear.prompt_ids("the cat sat", 8)
    plain = Plain(clear.config, clear.plain)
    ends = [one for (one,) in plain.continued([ids], 3)][2:]
    expected = Beams(2, 8, ends)
    list(plain.search(ids, expected, stop=True))
    assert expected.steps < 8
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        for stop, steps in ((False, 8), (True, expected.steps)):
            found = Beams(2, 8, ends)
            assert list(cluster.session.search(ids, found, stop))[-1] == steps
            assert found.best == expected.best


def test_what_is_refused(clear: PlainModel) -> None:
    ids = clear.prompt_ids("the cat", 3)
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        with pytest.raises(PolicyError, match="beam search needs logits"):
            cluster.search("the cat", 3)
        with pytest.raises(UsageError, match="a search by 1 beams"):
            cluster.search("the cat", 3, beams=1)
        cluster.session.reveals = True  # a client that does not care
        with pytest.raises(PolicyError, match="does not let clients see logits"):
            list(cluster.session.search(ids, Beams(2, 3)))
    params = dict(clear.params)
    name = "decoder.blocks.0.self_attn.q_proj.weight"
    params[name] = torch.full_like(params[name], 100.0)
    with pytest.raises(RangeError, match="too wide for hiding some in secret"):
        check_hiding(usual(clear.config), params, "search greedily")


@pytest.mark.parametrize(
    ("change", "says"),
    [({"lengths": [3, 3]}, "beams continue one prompt"), ({"reveal": False}, "as the client chooses")],
)
def test_requests_that_make_no_sense(change: dict[str, Any], says: str, clear: PlainModel) -> None:
    lengths, reveal = change.get("lengths", [3]), change.get("reveal", True)
    job = msg.Generate(msg.Input(lengths, [], []), 4, reveal=reveal, paced=True, beams=2)
    with Threads() as trio:
        trio.share(clear.config, clear.params, reveal_logits=True)
        with pytest.raises(UsageError, match=says):
            admit(clear.config, "spline", job, OWNER)


@pytest.mark.processes
def test_daemons_search_and_count_every_beam(clear: PlainModel, tmp_path: Path) -> None:
    with Live(tmp_path, Policy(reveal_logits=True, max_tokens=24)) as live:
        live.share(clear.checkpoint.folder, "t5", reveal_logits=True)
        with live.connect("t5") as cluster:
            expected = Beams(3, 4, clear.eos)
            list(clear.session.search(clear.prompt_ids("the cat sat", 4), expected, stop=True))
            assert cluster.search("the cat sat", 4, beams=3).token_ids == expected.best
            cluster.model.hides = False
            with pytest.raises(RangeError, match="may be too wide for hiding"):
                cluster.search("the cat sat", 4)
            cluster.model.hides = True
            with pytest.raises(AdmissionError, match="tokens, prompts and answers together"):
                cluster.search("the cat sat", 4, beams=8)


def test_a_client_that_hides_nothing(clear: PlainModel) -> None:
    with Threads() as trio:
        trio.share(clear.config, clear.params, reveal_logits=True)
        beams = Beams(2, 4)
        search = trio.session.search([3, 4], beams)
        next(search)
        beams.hidden = lambda: []  # type: ignore[method-assign]
        with pytest.raises(ProtocolError, match="chose no next tokens"):
            list(search)


def test_branches_do_not_see_each_other(tmp_path: Path) -> None:
    """Each row of two branches is what it is alone."""
    checkpoint, model = open_model(zoo.write(tmp_path, "neox"))
    together, vocabulary = Cache(checkpoint.config.layers, [len(IDS)]), zoo.VOCABULARY
    model(one_hot(IDS, vocabulary), together)
    texts = [[4, 6, 8], [5, 3, 9]]
    hidden = [[0, 1], [1, 0]]
    for step in range(3):
        together.branch(torch.tensor([row * (step + 1) for row in hidden]).float())
        found = model(one_hot([text[step] for text in texts], vocabulary), together)
        for row, text in zip(found, texts, strict=True):
            alone = model(one_hot([*IDS, *text[: step + 1]], vocabulary))[0]
            torch.testing.assert_close(row, alone, atol=1e-4, rtol=1e-4)
    several = Cache(checkpoint.config.layers, [2, 2])
    with pytest.raises(UsageError, match="2 prompts cannot branch"):
        several.branch(torch.zeros(2, 2))
