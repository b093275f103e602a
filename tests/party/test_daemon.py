"""Three daemons on this machine: a model's whole life, sessions side by side, refusals, restarts."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from puma.cli import app
from puma.client.connect import connect, open_session
from puma.config import Policy
from puma.errors import AdmissionError, HandshakeError, InputError, PeerLost, PumaError, StoreError, UsageError
from puma.net.frame import MAGIC, Kind, header_bytes
from puma.reference.plain_model import PlainModel
from tests.live import Live, patiently
from tests.models.files import talking
from tests.models.lora import adapters
from tests.watching.recorder import Recorder, replay

pytestmark = pytest.mark.processes
SESSIONS = 3


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Live]:
    """A cluster that serves two models; tests leave it healthy."""
    folder = tmp_path_factory.mktemp("cluster")
    with Live(folder, Policy(max_tokens=40, max_sessions=SESSIONS)) as made:
        made.share(checkpoints["llama"], "tiny")
        made.share(checkpoints["classifier"], "judge")
        yield made


def test_answers_are_the_plain_models(live: Live, checkpoints: dict[str, Path]) -> None:
    clear = PlainModel(checkpoints["llama"])
    with live.connect("tiny") as cluster:
        assert cluster.generate("the cat sat", 3).token_ids == clear.greedy(clear.prompt_ids("the cat sat", 3), 3)
        assert list(cluster.stream("the cat", 2)) == clear.greedy(clear.prompt_ids("the cat", 2), 2)
        assert [len(a.token_ids) for a in cluster.generate(["the cat", "a dog sat"], 2)] == [2, 2]
        assert cluster.cost.rounds > 0 and cluster.model.name == "tiny"
    clear = PlainModel(checkpoints["classifier"])
    with live.connect("judge") as cluster:
        found = cluster.encode("the cat sat").values
        assert float((found - clear.encoded(clear.sentence_ids("the cat sat"))).abs().max()) < 0.02
        assert cluster.model.labels == clear.labels
    live.settled()


def test_sessions_run_side_by_side(live: Live) -> None:
    with live.connect("tiny") as one, live.connect("tiny") as two:
        wanted = one.generate("the cat", 2).token_ids
        found: list[list[int]] = []
        threads = [
            threading.Thread(target=lambda c=c: found.append(c.generate("the cat", 2).token_ids)) for c in (one, two)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert found == [wanted, wanted]
        with live.connect("judge") as third, pytest.raises(AdmissionError, match="serves 3 already"):
            assert third.model.name == "judge"
            live.connect("tiny")
    live.settled()
    live.connect("tiny").close()


def test_a_place_that_becomes_free_is_waited_for(live: Live) -> None:
    sessions = [live.connect("tiny") for _ in range(SESSIONS)]
    timer = threading.Timer(0.5, sessions[0].close)
    timer.start()
    with live.connect("tiny") as late:
        assert len(late.generate("the cat", 2).token_ids) == 2
    timer.join()
    for session in sessions[1:]:
        session.close()
    live.settled()


def test_the_end_of_a_text_ends_a_request(live: Live, checkpoints: dict[str, Path]) -> None:
    clear = PlainModel(checkpoints["llama"])
    plain = clear.greedy(clear.prompt_ids("the cat", 8), 8)
    with live.connect("tiny") as cluster:
        cluster.model.eos = (plain[3],)
        first = plain.index(plain[3])
        assert cluster.generate("the cat", 8, stop="eos").token_ids == plain[: first + 1]
        assert list(cluster.stream("the cat", 8, stop="eos")) == plain[: first + 1]
        abandoned = cluster.stream("the cat", 8, stop="eos")
        next(abandoned)
        cluster.model.eos = (99,)
        assert cluster.generate("the cat", 3, stop="eos").token_ids == plain[:3]
        assert cluster.generate("the cat", 3).token_ids == plain[:3]
        cluster.model.eos = ()
        with pytest.raises(UsageError, match="no token that ends"):
            cluster.generate("the cat", 3, stop="eos")


def test_commands(
    live: Live, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """The same from the command line: whole lines in, one JSON object out."""
    there = ["--cluster", str(live.file), "--json", "--as"]

    def puma(*words: str, code: int = 0) -> Any:
        assert app.run(words) == code, capsys.readouterr()
        return json.loads(capsys.readouterr().out)

    alice, olga = [*there, str(live.key("alice"))], [*there, str(live.key("olga"))]
    done = puma("share", str(checkpoints["gpt2"]), "--name", "other", "--state", str(live.folder / "s"), *olga)
    assert (done["name"], done["resumed"], done["unchanged"]) == ("other", False, False)
    again = ("share", str(checkpoints["gpt2"]), "--name", "other", "--state", str(live.folder / "s"), *olga)
    assert puma(*again)["unchanged"] and not puma(*again, "--version", "2")["unchanged"]
    for who in (alice, olga):
        assert [m["name"] for m in puma("models", "list", *who)["models"]] == ["judge", "other", "tiny"]
    shown = puma("models", "show", "other", *alice)
    assert shown["name"] == "other" and shown["plan"]["texts"] > 10 and shown["family"] == "causal"
    assert {p["name"] for p in shown["places"] if p["proven"]} == set(shown["plan"]["proven"])
    assert puma("models", "show", "another", *alice, code=2)["error"]["kind"] == "UsageError"
    assert app.run(("models", "show", "other", *(word for word in alice if word != "--json"))) == 0
    assert "calibrated" in (words := capsys.readouterr().out) and "with a margin of 3 bits" in words
    clear = PlainModel(checkpoints["gpt2"])
    plain = clear.greedy(clear.prompt_ids("the cat", 4), 4)
    assert puma("generate", "the cat", "--tokens", "4", "--model", "other", *alice)["token_ids"] == plain
    found = puma("generate", "the cat", "--tokens", "4", "--model", "other", "--stop", "eos", *alice)["token_ids"]
    assert found == plain[: len(found)]
    assert len(puma("encode", "the cat", "a dog", "--model", "judge", *alice)["results"]) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\nand the dog\n"))
    turns = puma("chat", "--tokens", "2", "--model", "other", *alice)["turns"]
    assert [turn["user"] for turn in turns] == ["the cat", "and the dog"]
    assert puma("models", "delete", "other", *olga) == {"deleted": "other"}
    assert puma("generate", "the cat", "--model", "other", *alice, code=6)["error"]["kind"] == "StoreError"
    assert puma("generate", "the cat", "--as", "x", "--json", code=2)["error"]["kind"] == "UsageError"
    assert "on this machine" in puma("generate", "the cat", "--compare", *alice, code=2)["error"]["message"]
    assert "one too many" in puma("generate", "m", "the cat", *alice, code=2)["error"]["message"]
    assert puma("generate", "the cat", "--cluster", str(live.file), "--json", code=2)["error"]["hint"]


def test_a_gguf_file_under_an_adapter(live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its owner shares what both amount to; a client has nothing but the cluster file, and asks by the template."""
    file = talking.write(tmp_path, num_hidden_layers=1, temperature=0.5)
    adapter = adapters.write(tmp_path / "adapter", adapters.low("model.layers.0.self_attn.v_proj", 16, 32))
    there = ["--cluster", str(live.file), "--json", "--as"]
    words = ["share", str(file), "--adapter", str(adapter), "--state", str(live.folder / "s"), *there]
    try:
        assert app.run([*words, str(live.key("olga"))]) == 0, capsys.readouterr()
        name = json.loads(capsys.readouterr().out)["name"]
        assert name == "chatty-adapter"
        clear = PlainModel(file, adapter)
        with live.connect(name) as cluster:
            assert cluster.generate("the cat", 3).token_ids == clear.greedy(clear.prompt_ids("the cat", 3), 3)
            assert cluster.model.files["chat_template.jinja"]() == talking.TEMPLATE.encode()
            assert cluster.model.eos == (2,) and cluster.model.rules.chances == {"temperature": 0.5}
    finally:
        app.run(["models", "delete", "chatty-adapter", *there, str(live.key("olga"))])
    live.settled()


def test_limits_are_refused_by_name(live: Live) -> None:
    with live.connect("tiny") as cluster, pytest.raises(AdmissionError, match=r"51 tokens.* at most 40"):
        cluster.generate(["the cat"] * 3, 14)
    with live.connect("tiny") as cluster, pytest.raises(InputError):
        cluster.generate("the cat", 400)
    with pytest.raises(StoreError, match="do not hold one model nothing"):
        live.connect("nothing")
    with pytest.raises(UsageError, match="serves 2 models"):
        live.connect()
    live.settled()


def test_roles_are_kept_apart(live: Live) -> None:
    """A client uploads nothing, an owner asks nothing, a stranger is not let in, nor is a party as a client."""
    for who, role, error, words in (
        ("alice", "owner", HandshakeError, "role mismatch"),
        ("olga", "client", HandshakeError, "role mismatch"),
        ("mallory", "client", HandshakeError, "does not know the dialer"),
        ("p1", "client", HandshakeError, "mismatch"),
    ):
        with pytest.raises(error, match=words):
            open_session(live.cluster, live.key(who), role)  # type: ignore[arg-type]
    session = open_session(live.cluster, live.key("olga"), "owner")
    with pytest.raises(AdmissionError, match="olga as owner may not ask for open"):
        session.use("tiny")
    session.close()
    other = msgspec.structs.replace(live.cluster, policy=Policy(max_tokens=41))
    with pytest.raises(HandshakeError, match="config mismatch"):
        connect(other, "tiny", live.key("alice"))
    log = (live.store(0) / "audit.jsonl").read_text()
    assert '"refused"' in log and "mallory" not in log and '"name": "olga"' in log
    live.settled()


def test_garbage_on_the_port_disturbs_nobody(live: Live) -> None:
    for words in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(200), MAGIC, header_bytes(Kind.DATA, 0, 1 << 30), b""):
        with socket.create_connection(live.cluster.parties[1].host_port) as sock:
            sock.sendall(words)
    with live.connect("tiny") as cluster:
        assert len(cluster.generate("the cat", 1).token_ids) == 1
    assert live.text(1)["puma_sessions_active"] >= 0


def test_a_recorded_client_is_not_let_in_again(live: Live) -> None:
    """Whoever kept every byte that a client said to P0 has nothing: no session, and a line in the audit log."""
    recorder = Recorder(live.cluster.parties[0].host_port)
    near = msgspec.structs.replace(live.cluster.parties[0], address="{}:{}".format(*recorder.address))
    through = msgspec.structs.replace(live.cluster, parties=(near, *live.cluster.parties[1:]))
    with connect(through, "tiny", live.key("alice")) as cluster:
        cluster.generate("the cat", 1)
    live.settled()
    recorder.close()
    before = len(live.audited(0))
    assert len(recorder.said) == 2
    for said in recorder.said:
        replay(said, live.cluster.parties[0].host_port)
    lines: list[Any] = []
    end = time.monotonic() + 30
    while len(lines) < 2 and time.monotonic() < end:  # the port hangs up first, and writes the line then
        lines = [line for line in live.audited(0)[before:] if line["direction"] == "in"]
        time.sleep(0.01)
    assert [line["outcome"] for line in lines] == ["refused"] * 2, lines
    assert all("TLS failed" in line["reason"] for line in lines), lines
    assert live.health(0)[1]["sessions"] == 0
    with live.connect("tiny") as cluster:
        assert len(cluster.generate("the cat", 1).token_ids) == 1


def test_a_client_that_vanishes_leaves_nothing(live: Live) -> None:
    cluster = live.connect("tiny")
    stream = cluster.stream("the cat", 20)
    next(stream)
    for link in cluster.session.links:
        socket.socket.shutdown(link._outbound, socket.SHUT_RDWR)  # type: ignore[attr-defined]
    live.settled()
    cluster.close()


def test_health_and_metrics(live: Live) -> None:
    status, facts = live.health(2)
    assert status == 200 and facts["peers"] == {"P0": True, "P1": True} and facts["models"] == ["judge", "tiny"]
    found = live.text(2)
    assert found['puma_requests_total{kind="publish"}'] >= 2 and found["puma_models"] == 2
    assert found["puma_sent_bytes_total"] > 0 and found["puma_resident_bytes"] > 1 << 20
    for rank in range(3):
        text = (live.folder / f"p{rank}.log").read_text()
        assert "Traceback" not in text
        assert all(set(event) >= {"time", "party", "event"} for event in live.events(rank))


def test_what_is_on_disk(live: Live) -> None:
    """Each party holds its own: P0 seeds only, the evaluators the same masked words under different seeds."""
    data = [live.store(rank) / "models" / "tiny" / "data" for rank in range(3)]
    assert not data[0].exists() and data[1].read_bytes() == data[2].read_bytes()
    for rank in range(3):
        for path in (live.store(rank) / "models").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0
    left = [path for path in (live.folder / "state").iterdir() if path.suffix != ".shared"]
    assert not left, "seeds are deleted when an upload is done"


def test_told_to_stop_a_party_lets_a_request_end(live: Live) -> None:
    with live.connect("tiny") as busy, live.connect("tiny") as idle:
        stream = busy.stream("the cat", 20)
        found = [next(stream)]
        process = live.processes[2]
        assert process is not None
        process.send_signal(signal.SIGTERM)
        with pytest.raises(PumaError, match="about to stop"):
            while True:
                idle.generate("the cat", 1)
        with pytest.raises(PumaError, match="about to stop"):
            live.connect("tiny")
        found += list(stream)
        assert len(found) == 20
    assert process.wait(20) == 0
    live.start(2)
    live.healthy()


def test_restarts_replacements_and_deletion(live: Live, checkpoints: dict[str, Path]) -> None:
    with live.connect("tiny") as idle:
        assert live.kill(1) == -signal.SIGKILL
        began = time.monotonic()
        with pytest.raises(PumaError) as caught:
            idle.generate("the cat", 4)
        assert isinstance(caught.value, PeerLost) and time.monotonic() - began < 10
    live.start(1)
    live.healthy()
    with patiently(live, "tiny") as cluster:
        assert len(cluster.generate("the cat", 2).token_ids) == 2
        live.share(checkpoints["gpt2"], "tiny", version="2")  # replaced while a session has it open
        assert len(cluster.generate("the cat", 2).token_ids) == 2
    with live.connect("tiny", accept_changes=True) as cluster:
        clear = PlainModel(checkpoints["gpt2"])
        assert cluster.generate("the cat", 2).token_ids == clear.greedy(clear.prompt_ids("the cat", 2), 2)
    from puma.client.owner import Owner

    session = open_session(live.cluster, live.key("olga"), "owner")
    assert [m.card.version for m in session.models()] == ["1", "2"]
    Owner(session).delete("tiny")
    assert [m.card.name for m in session.models()] == ["judge"]
    session.close()
    with pytest.raises(StoreError, match="do not hold one model tiny"):
        live.connect("tiny")
    with live.connect() as cluster:
        assert cluster.model.name == "judge"
    live.settled()


def test_insecure_is_for_the_loopback(tmp_path: Path) -> None:
    live = Live(tmp_path, start=False)
    parties = (msgspec.structs.replace(live.cluster.parties[0], address="192.0.2.1:7700"), *live.cluster.parties[1:])
    with pytest.raises(UsageError, match=r"not for 192\.0\.2\.1"):
        connect(msgspec.structs.replace(live.cluster, parties=parties), "m", live.key("alice"), plain=True)


# -- uploads --------------------------------------------------------------------------------------------------------


@pytest.mark.masks_again
@pytest.mark.parametrize("lost", ["a link", *(pytest.param(name, marks=pytest.mark.slow) for name in ("P1", "P2"))])
def test_an_upload_that_is_cut_off_goes_on(
    lost: str, live: Live, tmp_path: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from puma.client.owner import Owner

    shutil.copytree(checkpoints["gpt2"], tmp_path / "model")
    real, sent, name = Owner._send, [], "cut-by-" + lost.replace(" ", "-")

    def cut(owner: Owner, tensor: Any, spec: Any, lacking: Any, resume: Any) -> None:
        sent.append(spec)
        if len(sent) == 8 and lost == "a link":
            owner._channel.links[2].fail("cut")
        elif len(sent) == 8:
            live.kill(int(lost[1]))
        real(owner, tensor, spec, lacking, resume)

    monkeypatch.setattr(Owner, "_send", cut)
    with pytest.raises(PumaError):
        live.share(tmp_path / "model", name)
    if lost != "a link":
        live.start(int(lost[1]))
        live.healthy()
    live.settled()
    with pytest.raises(StoreError, match=f"do not hold one model {name}"):
        live.connect(name)
    before = len(sent)
    resume = next(path for path in (live.folder / "state").iterdir() if path.suffix != ".shared")
    assert resume.stat().st_mode & 0o077 == 0
    seeds = resume.read_bytes().splitlines()[0]
    assert live.share(tmp_path / "model", name)
    assert not resume.exists() and seeds
    again = len(sent) - before
    total = len(PlainModel(tmp_path / "model").params)
    assert total - 8 < again < total, "what was whole is not sent again"
    with live.connect(name) as cluster:
        clear = PlainModel(checkpoints["gpt2"])
        assert cluster.generate("the cat", 2).token_ids == clear.greedy(clear.prompt_ids("the cat", 2), 2)


def test_a_party_without_room_says_so_and_stays_clean(live: Live, checkpoints: dict[str, Path]) -> None:
    process = live.processes[2]
    assert process is not None
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200, -1))
    with pytest.raises(StoreError, match="no room for the model large"):
        live.share(checkpoints["bert"], "large")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
    assert not list((live.store(2) / "uploads").iterdir())
    live.settled()
    live.share(checkpoints["bert"], "large")
    live.connect("large").close()


def test_a_party_serves_from_its_own_store_alone(live: Live) -> None:
    """Not while another process does, and not from another party's: told at once, and before anybody could ask."""
    for rank, store, why in (
        (2, 2, "is this party already running?"),
        (2, 0, "in use by another process"),
    ):
        words = ["party", "--as", str(live.key(f"p{rank}")), "--cluster", str(live.file), "--store"]
        done = live.run(*words, str(live.store(store)))
        assert done.returncode == StoreError.exit_code and why in done.stderr
    assert live.kill(0, signal.SIGTERM) == 0
    words = ["party", "--as", str(live.key("p2")), "--cluster", str(live.file), "--store", str(live.store(0))]
    done = live.run(*words)
    assert done.returncode == StoreError.exit_code and "is P0's, and this is P2" in done.stderr
    live.start(0)
    live.healthy()
