"""What the commands print, on tiny models: every JSON key, and words for people."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from puma.engine.engine import SELFTEST
from puma.errors import PumaError
from puma.local import cluster as local
from puma.measure import bench
from tests.cli.conftest import Run
from tests.models import sentences, zoo

BYTES = {"total", "online", "offline", "per_party", "client"}
pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("lent")]


def check_bytes(sent: dict[str, Any]) -> None:
    assert set(sent) == BYTES and len(sent["per_party"]) == 3
    assert sent["total"] == sent["online"] + sent["offline"] == sum(sent["per_party"]) + sent["client"]
    assert 0 < sent["client"] < sent["online"]


def test_generate(puma: Run, checkpoints: dict[str, Path]) -> None:
    found = puma("generate", checkpoints["llama"], "the cat sat", "--tokens", 3, "--compare", "--json").json
    assert list(found) == ["text", "token_ids", "seconds", "rounds", "bytes", "compare"]
    assert list(found["seconds"]) == ["load", "prefill", "decode"] and min(found["seconds"].values()) > 0
    assert len(found["token_ids"]) == 3 and found["rounds"] > 0
    check_bytes(found["bytes"])
    assert found["compare"] == {"text": found["text"], "token_ids": found["token_ids"], "agree": True}
    alone = puma("generate", checkpoints["llama"], "the cat sat", "--tokens", 3, "--json").json
    assert set(alone) == set(found) - {"compare"} and alone["token_ids"] == found["token_ids"]
    ran = puma("generate", checkpoints["llama"], "the cat sat", "--tokens", 3, "--compare")
    text, comparison, cost, where = ran.out.splitlines()
    assert ran.code == 0 and not ran.err
    assert text == f"the cat sat {found['text']}"
    assert comparison == "The plain model gives the same 3 tokens."
    assert re.fullmatch(r".* s \(.*\), .* tokens/s, .* rounds, .* online, .* offline", cost)
    assert "one machine" in where and "not for secrets" in where


def test_generate_with_secret_lengths(puma: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("the cat sat\na dog\n")
    secret, sizes = ("--tokens", 3, "--lengths", "secret", "--json"), list[object]()
    for asked in ([checkpoints["llama"], "the cat sat"], [checkpoints["llama"], "a dog"]):
        found = puma("generate", *asked, *secret, "--compare").json
        assert found["compare"]["agree"]
        sizes.append((found["rounds"], found["bytes"]))
    assert sizes[0] == sizes[1]
    both = puma("generate", checkpoints["llama"], "--prompts", tmp_path / "two.txt", *secret, "--compare").json
    assert all(result["compare"]["agree"] for result in both["results"])
    assert "rotary positions" in puma("generate", checkpoints["gpt2"], "the cat", *secret).out
    assert "beam search" in puma("generate", checkpoints["llama"], "the cat", *secret, "--beams", 2).out


def test_generate_with_drafts(puma: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    asked = ("generate", checkpoints["llama"], "the cat sat on the cat sat on the cat sat", "--tokens", 6)
    plain, found = puma(*asked, "--json").json, puma(*asked, "--draft", "lookup", "--compare", "--json").json
    assert found["token_ids"] == plain["token_ids"] and found["compare"]["agree"]
    assert list(found["drafts"]) == ["drafted", "accepted", "steps", "tokens_a_step"] and found["drafts"]["steps"] <= 5
    ran = puma(*asked, "--draft", checkpoints["llama"])
    assert re.search(r" drafts right, [0-9.]+ tokens a step, .* rounds", ran.out)
    (tmp_path / "two.txt").write_text("the cat sat on the cat sat\na dog\n")
    both = puma(
        "generate",
        checkpoints["llama"],
        "--prompts",
        tmp_path / "two.txt",
        "--tokens",
        4,
        "--draft",
        "lookup",
        "--compare",
        "--json",
    )
    assert all(result["compare"]["agree"] for result in both.json["results"]) and "drafts" in both.json
    for more, why in ((("--beams", 2), "several texts"), (("--prepared",), "step by step")):
        assert why in puma(*asked, "--draft", "lookup", *more).err
    assert "continues no text" in puma(*asked, "--draft", checkpoints["bert"]).err


def test_generate_with_the_embedded_model(
    puma: Run, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("puma.models.stories.FOLDER", checkpoints["gpt2"])
    assert len(puma("generate", "the cat sat", "--tokens", 1, "--json").json["token_ids"]) == 1


def test_generate_at_random(puma: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    asked = ("generate", checkpoints["llama"], "the cat sat", "--tokens", 4, "--temperature", 2, "--json")
    assert len(puma(*asked).json["token_ids"]) == 4
    seeded = [puma(*asked, "--reveal-logits", "--seed", seed, "--top-k", 20).json["token_ids"] for seed in (1, 1, 2)]
    assert seeded[0] == seeded[1] != seeded[2]
    (tmp_path / "two.txt").write_text("the cat\na dog\n")
    both = ("generate", checkpoints["llama"], "--prompts", tmp_path / "two.txt", "--tokens", 2, "--temperature", 1)
    assert len(puma(*both, "--json").json["results"]) == 2


def test_generate_says_where_it_differs(
    puma: Run, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("puma.reference.plain_model.PlainModel.greedy", lambda *_: [0, 0])
    ran = puma("generate", checkpoints["llama"], "the cat sat", "--tokens", 2, "--compare")
    assert "The plain model differs from token 1 on" in ran.out


def test_generate_from_a_file(puma: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    lines = tmp_path / "prompts.txt"
    lines.write_text("the cat sat\n\n  \na dog\nit was red and they\n")
    command = ("generate", checkpoints["llama"], "--prompts", lines, "--tokens", 2)
    found = puma(*command, "--compare", "--json").json
    assert list(found) == ["results", "seconds", "rounds", "bytes"]
    assert [result["prompt"] for result in found["results"]] == ["the cat sat", "a dog", "it was red and they"]
    for result in found["results"]:
        assert list(result) == ["prompt", "text", "token_ids", "compare"]
        assert len(result["token_ids"]) == 2 and result["compare"]["agree"]
    check_bytes(found["bytes"])
    ran = puma(*command)
    texts = [f"{result['prompt']} {result['text']}" for result in found["results"]]
    assert ran.out.splitlines()[:6:2] == texts
    assert "tokens/s" in ran.out and "not for secrets" in ran.out
    lines.write_text("\n")
    assert "holds no prompt" in puma(*command).err
    lines.write_text("the cat\n" + "the " * 40)
    assert "the model's context 32" in puma(*command).err


def test_encode_embeds(puma: Run, checkpoints: dict[str, Path]) -> None:
    ran = puma("encode", checkpoints["bert"], "the cat sat", "--compare", "--json")
    assert "the mean of the token states" in ran.err  # what was assumed
    found = json.loads(ran.out)
    assert list(found) == ["results", "embedding", "compare", "seconds", "rounds", "bytes"]
    (result,) = found["results"]
    assert result["text"] == "the cat sat" and result["embedding"] == found["embedding"]
    assert abs(sum(x * x for x in found["embedding"]) - 1) < 1e-6
    assert found["compare"]["max_abs_error"] < 0.01 and found["compare"]["cosine"] > 0.9999
    check_bytes(found["bytes"])
    out = puma("encode", checkpoints["bert"], "the cat sat").out
    assert "24 numbers" in out and "not for secrets" in out


def test_encode_pairs(puma: Run, checkpoints: dict[str, Path]) -> None:
    asked = ("encode", checkpoints["bert"], "the cat", "sat", "a dog", "ran", "--pairs")
    found = json.loads(puma(*asked, "--compare", "--json").out)["results"]
    assert [result["text"] for result in found] == [["the cat", "sat"], ["a dog", "ran"]]
    assert all(result["compare"]["cosine"] > 0.9999 for result in found)
    assert "the cat | sat" in puma(*asked).out
    assert "3 texts are no pairs" in puma(*asked[:4], "more", "--pairs").err


def test_encode_as_the_folder_says_and_as_asked(puma: Run, tmp_path: Path) -> None:
    general = {"prompts": {"query": "the red hat "}}
    folder = sentences.write(tmp_path / "it", {"pooling_mode": "cls"}, own={"max_seq_length": 6}, general=general)
    asked = ("--prompt-name", "query", "--truncate", "--dimensions", 5, "--normalize")
    ran = puma("encode", folder, "the cat sat on a mat", "it", *asked, "--compare", "--json")
    assert "Text 1: 6 tokens are read, 5 beyond them are left out." in ran.err and "assumed" not in ran.err
    first, second = json.loads(ran.out)["results"]
    assert first["left_out"] == 5 and "left_out" not in second
    for result in (first, second):
        assert len(result["embedding"]) == 5 and abs(sum(x * x for x in result["embedding"]) - 1) < 1e-6
        assert result["compare"]["cosine"] > 0.9999
    assert "reads 6" in puma("encode", folder, "the cat sat on a mat").err
    assert "no prompt other" in puma("encode", folder, "it", "--prompt-name", "other").err
    assert "24 dimensions" in puma("encode", folder, "it", "--dimensions", 25).err
    assert "vectors of texts: cls" in puma("check", folder, "--text", "the cat").out


def test_encode_classifies_several_texts(puma: Run, checkpoints: dict[str, Path]) -> None:
    texts = ["the cat sat", "a dog ran"]
    found = puma("encode", checkpoints["classifier"], *texts, "--json").json
    assert list(found) == ["results", "seconds", "rounds", "bytes"]
    assert [result["text"] for result in found["results"]] == texts
    for result in found["results"]:
        assert result["labels"] == ["bad", "fair", "good"] and len(result["logits"]) == 3
    check_bytes(found["bytes"])
    alone = puma("encode", checkpoints["classifier"], texts[0], "--json").json
    assert alone["rounds"] == found["rounds"]  # one request for both
    assert alone["logits"] == pytest.approx(found["results"][0]["logits"], abs=0.01)
    assert alone["labels"] == ["bad", "fair", "good"]
    out = puma("encode", checkpoints["classifier"], *texts, "--compare").out
    assert out.count("<") == 2 and out.count("cosine") == 2 and "texts/s" in out


@pytest.mark.parametrize(("name", "options"), [("llama", ["--tokens", 2, "--batch", 3]), ("bert", [])])
def test_bench_pays_what_cost_says(name: str, options: list[object], puma: Run, checkpoints: dict[str, Path]) -> None:
    found = puma("bench", checkpoints[name], "--prompt", 4, *options, "--no-fitted", "--json").json
    assert set(found) == {
        "model", "layers", "prompt", "tokens", "batch", "seconds",
        "prefill_seconds", "cpu_seconds", "peak_rss_mib", "rounds", "bytes",
        "max_abs_error", "plain_seconds", "repeated_layers", "breakdown", "machine", "version", "plan",
    }  # fmt: skip
    assert (found["model"], found["layers"], found["prompt"]) == (name, 2, 4)
    assert (found["tokens"], found["batch"]) == ((2, 3) if options else (0, 1))
    assert found["plain_seconds"] > 0
    assert len(found["peak_rss_mib"]) == 3 and 0 < found["max_abs_error"] < 0.01
    assert all(set(part) == {"name", "seconds", "rounds", "bytes"} for part in found["breakdown"])
    check_bytes(found["bytes"])
    cost = puma("cost", checkpoints[name], "--prompt", 4, *options, "--network", "lan", "--json").json
    assert set(cost) == {
        "model", "layers", "prompt", "tokens", "batch", "rounds", "bytes", "first", "further", "disk", "memory",
        "networks", "measured", "breakdown",
    }  # fmt: skip
    same = ("model", "layers", "prompt", "tokens", "batch", "rounds", "bytes")
    assert {key: cost[key] for key in same} == {key: found[key] for key in same}
    assert sum(part["bytes"] for part in cost["breakdown"]) == sum(cost["bytes"]["per_party"])


def test_cost_answers_what_an_owner_asks(puma: Run, tmp_path: Path) -> None:
    words = ["cost", "smollm2-135m", "--prompt", 16, "--tokens", 5, "--price-gb", 0.5, "--price-hour", 2]
    cost = puma(*words, "--json").json
    assert cost["disk"][0] == 0 and cost["disk"][1] == cost["disk"][2] > 6 * 134_000_000
    assert all(memory > disk for memory, disk in zip(cost["memory"], cost["disk"], strict=True))
    assert cost["first"]["rounds"] + 4 * cost["further"]["rounds"] == cost["rounds"]
    assert cost["first"]["bytes"]["total"] + 4 * cost["further"]["bytes"] == pytest.approx(cost["bytes"]["total"])
    lan, wan = cost["networks"]
    assert (lan["name"], wan["name"]) == ("lan", "wan") and lan["seconds"] < wan["seconds"]
    for each in (lan, wan):
        assert each["first_seconds"] + 4 * each["further_seconds"] == pytest.approx(each["seconds"])
        thousand = each["thousand"]
        assert thousand["gigabytes"] == pytest.approx(cost["bytes"]["total"] / 1e6)
        assert thousand["machine_hours"] == pytest.approx(1000 * 3 * each["seconds"] / 3600)
        assert thousand["price"] == pytest.approx(0.5 * thousand["gigabytes"] + 2 * thousand["machine_hours"])
    out = puma(*words).out
    assert "to the first token" in out and "for each further one" in out and "a thousand such" in out and " = " in out
    assert " = " not in puma("cost", "smollm2-135m", "--prompt", 16).out  # nobody has named a price


def test_cost_of_what_is_no_text(puma: Run) -> None:
    image = puma("cost", "vit-base", "--json").json
    assert image["prompt"] == 197 and image["tokens"] == 0 and image["further"] is None
    refused = puma("cost", "vit-base", "--prompt", 4)
    assert refused.code == 2 and "an image has no tokens" in refused.err
    assert "how long is the prompt?" in puma("cost", "gpt2").err
    assert "a price is a number" in puma("cost", "gpt2", "--prompt", 4, "--price-gb", "-1").err


def test_a_config_alone_is_counted(puma: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    alone = tmp_path / "some-model" / "config.json"
    alone.parent.mkdir()
    alone.write_text((checkpoints["llama"] / "config.json").read_text())
    found = puma("cost", alone, "--prompt", 4, "--json").json
    whole = puma("cost", checkpoints["llama"], "--prompt", 4, "--json").json
    assert found.pop("model") == "some-model" and whole.pop("model") == "llama" and found == whole
    refused = puma("encode", alone, "text")
    assert refused.code != 0 and "has no weights" in refused.err


@pytest.mark.parametrize(("name", "options", "rows"), [("vit", ["--batch", 2], 10), ("whisper", ["--tokens", 2], 8)])
def test_bench_of_what_is_no_text(name: str, options: list[object], rows: int, puma: Run, tmp_path: Path) -> None:
    folder = zoo.write(tmp_path / name, name)
    found = puma("bench", folder, *options, "--no-fitted", "--json").json
    assert found["prompt"] == rows and 0 < found["max_abs_error"] < 0.02 and found["plain_seconds"] > 0
    if name == "whisper":
        cost = puma("cost", folder, *options, "--json").json
        assert (cost["rounds"], cost["bytes"]) == (found["rounds"], found["bytes"])
    assert "leave out --prompt" in puma("bench", folder, "--prompt", 4).err


def test_bench_for_people(puma: Run, checkpoints: dict[str, Path]) -> None:
    out = puma("bench", checkpoints["gpt2"], "--prompt", 3, "--layers", 1, "--batch", 2, "--no-error").out
    assert "gpt2, 1 layers, 3 tokens in, 1 out, 2 times" in out and "CPU seconds" in out and "tokens/s" in out
    assert "largest error" not in out
    assert re.search(r"^attention +\d", out, re.MULTILINE)


def test_cost_for_people(puma: Run) -> None:
    out = puma("cost", "gpt2", "--prompt", 3, "--network", "100Mbps,20ms").out
    assert "gpt2, 12 layers, 3 tokens in, 1 out" in out and "rounds" in out and "disk of P0, P1, P2" in out
    assert "100Mbps,20ms (20 ms, 0.1 Gbps): " in out and "lan" not in out
    assert "estimates" in out and re.search(r"^attention +\d", out, re.MULTILINE)


def test_doctor(puma: Run) -> None:
    found = puma("doctor", "--json").json
    assert list(found) == ["versions", "processor", "memory_gib", "kernels", "selftest"]
    assert {"puma", "python", "torch", "numba", "cryptography"} <= set(found["versions"])
    assert {"model", "cores", "aes", "avx2", "avx512f", "amx_int8"} == set(found["processor"])
    assert found["selftest"]["ok"] and found["selftest"]["max_abs_error"] < 0.002
    ran = puma("doctor")
    assert ran.code == 0 and "self-test    passed" in ran.out


def test_doctor_finds_wrong_results(puma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("puma.client.session.Session.selftest", lambda _: torch.zeros(len(SELFTEST)).double())
    ran = puma("doctor")
    assert ran.code == 1 and "FAILED: the result is off by 100" in ran.out
    assert not puma("doctor", "--json").json["selftest"]["ok"]


def test_doctor_finds_dead_parties(puma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(progress: object) -> None:
        raise PumaError("P0 did not start", "look at it")

    monkeypatch.setattr(local, "Trio", start)
    ran = puma("doctor")
    assert ran.code == 1 and "FAILED: P0 did not start" in ran.out


def test_demo(puma: Run, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("puma.models.stories.FOLDER", checkpoints["llama"])
    ran = puma("demo", "--tokens", 3)
    assert ran.code == 0 and not ran.err
    shown = re.findall(r"^  (you|  |P\d) +(m|l1|l2|) +([01.]{8,})$", ran.out, re.MULTILINE)
    (_, _, row), *held = shown
    assert len(held) == 6
    copies = {name: [bits for _, n, bits in held if n == name] for name in ("m", "l1", "l2")}
    for a, b in copies.values():  # the two copies of a component differ where the token is, and only there
        assert [i for i, (x, y) in enumerate(zip(a, b)) if x != y] == [row.index("1")]
    assert "The plain model" in ran.out and "tokens/s" in ran.out


def test_bench_warms_up_with_a_prompt_of_one(puma: Run, checkpoints: dict[str, Path]) -> None:
    assert puma("bench", checkpoints["bert"], "--prompt", 1, "--json").json["prompt"] == 1
    assert bench.WARM_UP > 0


def test_beam_search(puma: Run, tmp_path: Path) -> None:
    folder = zoo.write(tmp_path, "t5")
    asked = ("generate", folder, "the cat sat", "--tokens", "4", "--beams", "3")
    found = puma(*asked, "--reveal-logits", "--compare", "--json").json
    assert found["compare"]["agree"] and found["beams"] == 3 and 1 <= len(found["token_ids"]) <= 4
    told = puma(*asked, "--reveal-logits", "--compare").out
    assert "The plain model gives the same" in told and told.startswith(found["text"] + "\n")
    assert "needs logits" in puma(*asked).err
    assert "a search by 1 beams" in puma(*asked[:-1], "1", "--reveal-logits").err
    assert "without chance" in puma(*asked, "--temperature", "1").err
    assert "length penalty of nan" in puma(*asked, "--reveal-logits", "--length-penalty", "nan").err
    assert "is for a beam search" in puma(*asked[:-2], "--length-penalty", "2").err


def test_check_of_a_config_alone(puma: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    alone = tmp_path / "config.json"
    alone.write_text((checkpoints["llama"] / "config.json").read_text())
    found = puma("check", "--config", alone, "--json").json
    assert found["supported"] and found["class"] == "LlamaForCausalLM" and found["parts"] and not found["refused"]
    assert "LlamaForCausalLM: supported" in puma("check", alone).out
    alone.write_text(json.dumps(json.loads(alone.read_text()) | {"hidden_act": "swish2"}))
    refused = puma("check", alone)
    assert refused.code == 3 and "refused: config.json sets hidden_act to 'swish2'" in refused.out
    assert puma("check").code == puma("check", "stories", "--config", alone).code == 2
