"""What daemons do for a client besides the usual answers: other approximations, and requests in two phases."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from puma.cli import app
from puma.client.connect import RemoteCluster, connect, open_session
from puma.config import Policy
from puma.errors import AdmissionError, PolicyError, ProtocolError, UsageError
from puma.local import inventory as kept
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from tests.live import Live, patiently

pytestmark = pytest.mark.processes
TEXT = "the cat sat"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Live]:
    """A cluster that serves a model for one approximation besides splines, and one for splines alone."""
    with Live(tmp_path_factory.mktemp("cluster"), Policy(max_tokens=200), "--preprocessing", "0.01") as made:
        made.share(checkpoints["llama"], "tiny")
        made.share(checkpoints["classifier"], "judge", approximations=("spline", "mpcformer"))
        yield made


def ended(live: Live) -> list[Any]:
    """The error with which the last session ended, at each party."""
    live.settled()
    return [[e.get("error") for e in live.events(rank) if e["event"] == "session ends"][-1] for rank in range(3)]


def test_answers_are_the_approximations_that_the_owner_allows(live: Live, checkpoints: dict[str, Path]) -> None:
    clear = PlainModel(checkpoints["classifier"])
    tokens = clear.sentence_ids(TEXT)
    found = {}
    for profile in ("spline", "mpcformer"):
        with connect(live.cluster, "judge", live.key("alice"), approximation=profile) as cluster:
            found[profile] = cluster.encode(TEXT).values
        own = Plain(clear.config, clear.params, profile).encode([tokens.ids], "logits", [tokens.types])[0]
        assert float((found[profile] - own).abs().max()) < 2e-3
    assert float((found["spline"] - found["mpcformer"]).abs().max()) > 1e-3
    assert ended(live) == [None] * 3


def test_others_are_refused_by_name_at_the_client_and_all_parties(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = "owner does not let it be computed with puma"
    with pytest.raises(PolicyError, match=wanted) as caught:
        connect(live.cluster, "judge", live.key("alice"), approximation="puma")
    assert "spline or mpcformer" in str(caught.value.hint)
    assert ended(live) == ["PolicyError"] * 3
    with pytest.raises(PolicyError, match="computed with mpcformer"):
        connect(live.cluster, "tiny", live.key("alice"), approximation="mpcformer")
    with pytest.raises(UsageError, match="approximation cannot be exact"):
        connect(live.cluster, "tiny", live.key("alice"), approximation="exact")


def test_a_client_believes_the_card_and_not_the_parties(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parties that serve what the owner did not allow find no client for it."""
    session = open_session(live.cluster, live.key("alice"), "client")

    def opened(name: str) -> bool:
        session.config, session.card = PlainModel().config, msg.Card(name)
        return True

    monkeypatch.setattr(session, "open", opened)
    with pytest.raises(PolicyError, match="computed with puma"):
        session.use("judge", "puma")
    session.close()


def test_to_ask_for_a_model_that_is_not_there_changes_nothing(live: Live) -> None:
    """Else a model that is open already would be computed with what its owner does not allow."""
    with live.connect("tiny") as cluster:
        cluster.session.approximation = "puma"
        assert not cluster.session.open("nowhere")
        with pytest.raises(UsageError, match="compute with spline, the request names puma"):
            cluster.generate(TEXT, 1)


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_parties_that_are_told_different_things_refuse(odd: int, live: Live) -> None:
    session = open_session(live.cluster, live.key("alice"), "client")
    session._begin()
    for rank, link in enumerate(session.links):
        link.send_control(msg.encode(msg.Open("judge", "mpcformer" if rank == odd else "spline")))
    with pytest.raises(ProtocolError, match="was asked for something else than"):
        session._replies(msg.Opened)
    session.close()
    assert set(ended(live)) <= {"ProtocolError", "PeerLost"}


def test_commands(live: Live, checkpoints: dict[str, Path]) -> None:
    def run(*words: str) -> Any:
        out = io.StringIO()
        with redirect_stdout(out):
            assert app.run([*words, "--cluster", str(live.file), "--json"]) == 0
        return json.loads(out.getvalue())

    key = ("--as", str(live.key("olga")), "--state", str(live.folder / "state"))
    run("share", str(checkpoints["llama"]), "--name", "both", "--approximations", "spline, puma", *key)
    listed = run("models", "list", "--as", str(live.key("alice")))["models"]
    listed = {each["name"]: each["approximations"] for each in listed}
    assert listed == {"both": ["spline", "puma"], "judge": ["spline", "mpcformer"], "tiny": ["spline"]}
    asked = ("generate", TEXT, "--tokens", "2", "--as", str(live.key("alice")), "--model")
    assert run(*asked, "both", "--approximation", "puma")["approximation"] == "puma"
    assert "approximation" not in run(*asked, "both")
    wrong = [*asked, "tiny", "--approximation", "puma", "--cluster", str(live.file)]
    assert app.run(wrong) == PolicyError.exit_code
    run("models", "delete", "both", "--as", str(live.key("olga")))


# -- requests in two phases -----------------------------------------------------------------------------------------


def pieces(live: Live) -> list[list[Path]]:
    """The preprocessing of each party."""
    return [[path for path in live.store(rank).glob("preprocessing/*/*") if path.is_file()] for rank in range(3)]


def counts(live: Live) -> list[int]:
    return [len(found) for found in pieces(live)]


def connected(live: Live, memory: Path, name: str = "tiny", accept_changes: bool = False) -> RemoteCluster:
    how = {"prepared_requests": memory, "accept_changes": accept_changes}
    return connect(live.cluster, name, live.key("alice"), **how)  # type: ignore[arg-type]


def test_what_was_prepared_serves_one_request_of_a_later_session(live: Live, memory: Path) -> None:
    with connected(live, memory) as cluster:
        usual = cluster.generate(TEXT, 2)
        prepared_request = cluster.prepare(len(cluster.model.prompt_ids(TEXT, 2)), 2)
    assert prepared_request.offline == usual.cost.offline and counts(live) == [1, 1, 1]
    for rank, (path,) in enumerate(pieces(live)):
        content = path.read_bytes()
        assert len(content) == prepared_request.sizes[rank]
        assert not any(
            seed in content for seed in (*prepared_request.choices, *prepared_request.masks, prepared_request.id)
        )
    with connected(live, memory) as cluster:
        answer, again = cluster.generate(TEXT, 2), cluster.generate(TEXT, 2)
    assert answer.cost.prepared == prepared_request and again.cost.prepared is None and counts(live) == [0, 0, 0]
    assert answer.token_ids == again.token_ids == usual.token_ids
    assert (answer.cost.online, answer.cost.offline) == (usual.cost.online, 0)


def test_commands_prepare_and_use_it(live: Live, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "default_folder", lambda: memory / "usual")

    def run(*words: object) -> Any:
        out = io.StringIO()
        with redirect_stdout(out):
            assert app.run([*map(str, words), "--cluster", str(live.file), "--as", str(live.key("alice"))]) == 0
        return out.getvalue()

    asked = ("--tokens", 2, "--prompt", 4)
    assert "with --prepared" in run("prepare", "tiny", *asked)
    assert json.loads(run("prepare", "--model", "tiny", *asked, "--store", memory / "mine", "--json"))["count"] == 1
    request = ("generate", TEXT, "--model", "tiny", "--tokens", 2, "--json")
    assert "prepared" not in json.loads(run(*request))
    places = [("--prepared",), ("--store", memory / "mine"), ("--prepared",)]
    assert [json.loads(run(*request, *place))["prepared"] for place in places] == [True, True, False]


def test_what_was_taken_is_lost_with_its_session(live: Live, memory: Path) -> None:
    with connected(live, memory) as cluster:
        prepared_request = cluster.prepare(len(cluster.model.prompt_ids(TEXT, 1)), 1)
        assert cluster.session._problem(prepared_request) == ""
        assert counts(live) == [0, 0, 0]
        assert "has been used" in cluster.session._problem(prepared_request)
    live.settled()
    with connected(live, memory) as cluster:
        answer = cluster.generate(TEXT, 1)
    assert answer.cost.prepared is None and answer.cost.offline > 0


def test_a_replaced_model_takes_its_preprocessing_along(live: Live, memory: Path, checkpoints: dict[str, Path]) -> None:
    with connected(live, memory, "judge") as cluster:
        cluster.prepare(3)
    before = counts(live)
    live.share(checkpoints["classifier"], "judge", version="2", approximations=("spline", "mpcformer"))
    assert counts(live) == [count - 1 for count in before]
    with connected(live, memory, "judge", accept_changes=True) as cluster:
        assert cluster.encode(TEXT).cost.prepared is None


def test_preprocessing_has_bounds_and_an_abort_leaves_none(live: Live, memory: Path) -> None:
    with connected(live, memory) as cluster, pytest.raises(AdmissionError, match="at most for one key"):
        while True:
            cluster.prepare(20, 8, 4)
    live.settled()
    found = counts(live)
    assert max(found) == min(found) > 0  # of the one that did not fit, no party has kept its part
    assert sum(path.stat().st_size for path in pieces(live)[2]) <= 10 << 20
    with connected(live, memory) as cluster, pytest.raises(AdmissionError, match="208 tokens"):
        cluster.prepare(25, 1, 8)


@pytest.mark.slow
def test_a_party_that_restarts_has_lost_its_own(live: Live, memory: Path) -> None:
    live.kill(1)
    live.start(1)
    live.healthy()
    assert counts(live)[1] == 0
    with patiently(live, "tiny") as cluster:
        expected = cluster.generate(TEXT, 1).token_ids
    with connected(live, memory) as cluster:
        cluster.prepare(len(cluster.model.prompt_ids(TEXT, 1)), 1)
    live.kill(2)
    live.start(2)
    live.healthy()
    patiently(live, "tiny").close()
    with connected(live, memory) as cluster:
        answer = cluster.generate(TEXT, 1)
    assert answer.token_ids == expected and answer.cost.prepared is None
