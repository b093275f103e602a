"""The front door: fast, without torch, and every mistake answered with a line and a hint."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import puma as package
from puma.cli.app import COMMANDS
from tests.cli.conftest import Run
from tests.models import tiny

SLOW = ("torch", "numba", "numpy", "tokenizers", "huggingface_hub")


def test_help_is_fast_and_imports_nothing_large() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "puma.cli.app"]
    took = []
    for words in (["--help"], ["--help"], ["generate", "--help"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)  # what it computes, whatever else the machine does
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ran.stderr.splitlines()}
        assert "cyclopts" in imported
        assert not imported.intersection(SLOW)
    assert min(took) < 1.0


def test_help(puma: Run) -> None:
    ran = puma("--help")
    assert ran.code == 0 and not ran.err
    assert all(name.partition(" ")[0] in ran.out for name in COMMANDS)
    assert "Exit codes" in ran.out and "130" in ran.out
    for name in COMMANDS:
        ran = puma(*name.split(), "--help")
        assert ran.code == 0 and f"puma {name}" in ran.out


def test_version(puma: Run) -> None:
    assert puma("--version") == (0, f"puma {package.__version__}\n", "")


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nope", "there is no command nope"),
        ("keys nope", "there is no command keys nope"),
        ("generate", "puma generate needs PROMPT"),
        ("generate {llama} the --prompts lines.txt", "--prompts takes the place of PROMPT"),
        ("generate {llama} --prompts no-such-file.txt", "no-such-file.txt cannot be read"),
        ("generate {llama} --prompts {llama}", "cannot be read"),
        ("generate {llama} --prompts {llama}/model.safetensors", "cannot be read"),
        ("generate {llama} the --tokens many", "--tokens"),
        ("generate {llama} the --tokens nan", "--tokens"),
        ("generate {llama} the --tokens 1.5", "--tokens"),
        ("generate {llama} the --tokens -3", "cannot generate -3 tokens"),
        ("generate {llama} the --tokens 0", "cannot generate 0 tokens"),
        ("generate {llama} the --tokens 33", "exceed the model's context of 32"),
        ("generate {llama} the --warmth 1", "unknown option"),
        ("generate {llama} the --temperature -1", "cannot sample at temperature -1"),
        ("generate {llama} the --temperature hot", "--temperature"),
        ("generate {llama} the --top-p 2", "a top_p of 2"),
        ("generate {llama} the --top-k 4", "top_k needs logits"),
        ("generate {llama} the --seed 4", "seed needs logits"),
        ("generate {llama} the --temperature 1 --compare", "samples cannot be compared"),
        ("gateway {llama} --temperature 3", "makes no sense"),
        ("gateway {llama} --host 256.1.1.1 --port 0", "cannot listen on 256.1.1.1"),
        ("gateway {llama} --port 99999", "cannot listen on 127.0.0.1, port 99999"),
        ("gateway --cluster cluster.toml", "a cluster wants to know who asks"),
        ("gateway {llama} --cluster cluster.toml", "a cluster has its own models"),
        ("gateway --adapter mine --cluster cluster.toml", "a cluster has its own models"),
        ("generate hi --adapter mine --cluster cluster.toml", "--adapter is for a model on this machine"),
        ("chat --adapter mine --cluster cluster.toml", "--adapter is for a model on this machine"),
        ("bench gpt2 --prompt 4 --adapter mine", "takes no adapter"),
        ("gateway {llama} --as me.key", "belong to a cluster"),
        ("generate {llama} ", "the prompt is empty"),
        ("generate {llama} LONG", "the model's context 32"),
        ("generate {bert} the", "does not generate text"),
        ("encode {llama} the", "is no encoder"),
        ("encode {bert}", "puma encode needs TEXT"),
        ("encode {bert} LONG", "the model's context 32"),
        ("encode {bert} the ", "the prompt is empty"),
        ("bench bert-base", "how long is the prompt?"),
        ("bench bert-huge --prompt 4", "there is no preset bert-huge"),
        ("bench bert-base --prompt 0", "a prompt of 0 tokens"),
        ("bench bert-base --prompt -4", "a prompt of -4 tokens"),
        ("bench bert-base --prompt nan", "--prompt"),
        ("bench bert-base --prompt 513", "the model's context 512"),
        ("bench bert-base --prompt 4 --tokens 1", "an encoder generates no tokens"),
        ("bench {llama} --prompt 4 --batch 0", "a batch of 0 prompts"),
        ("bench {llama} --prompt 4 --batch 300", "300 prompts are more than 256"),
        ("cost gpt2 --prompt 500 --batch 100", "make tensors of 300,000,000 numbers"),
        ("bench {llama} --prompt 4 --layers 0", "a model of 0 layers"),
        ("bench {llama} --prompt 4 --layers 3", "has 2 layers, not 3"),
        ("bench stories --prompt 4 --layers 99", "stories has "),
        ("cost gpt2 --prompt 4 --network moon", "there is no network moon"),
        ("cost gpt2 --prompt 4 --network nan,1ms", "is no positive amount"),
        ("cost gpt2 --prompt 1020 --tokens 9", "exceed the model's context of 1024"),
        ("cost gpt9 --prompt 4", "there is no preset gpt9"),
        ("doctor --loud", "unknown option"),
        ("demo --tokens x", "--tokens"),
    ],
)
def test_mistakes(words: str, says: str, puma: Run, checkpoints: dict[str, Path]) -> None:
    command = [word.replace("LONG", "the " * 40) for word in words.format(**checkpoints).split(" ")]
    ran = puma(*command)
    assert ran.code == 2 and ran.out == ""
    error, hint = ran.err.splitlines()
    assert error.startswith("error: ") and says in error
    assert hint.startswith("hint: ") and len(hint) > len("hint: ")
    found = puma(*command, "--json")
    assert found.code == 2
    error = found.json["error"]
    assert set(error) == {"kind", "message", "hint"}
    assert says in error["message"] and error["kind"] in ("UsageError", "InputError", "PolicyError")


def spoil_nan(state: dict[str, torch.Tensor]) -> None:
    state["model.embed_tokens.weight"][0, 0] = torch.nan


def spoil_range(state: dict[str, torch.Tensor]) -> None:
    state["lm_head.weight"][3, 3] = 1e6


def spoil_shape(state: dict[str, torch.Tensor]) -> None:
    state["lm_head.weight"] = state["lm_head.weight"][1:].clone()


def spoil_missing(state: dict[str, torch.Tensor]) -> None:
    del state["model.layers.1.mlp.up_proj.weight"]


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (spoil_nan, "TensorError", "NaN"),
        (spoil_range, "RangeError", ""),
        (spoil_shape, "TensorError", "has shape"),
        (spoil_missing, "TensorError", "is missing"),
        ("folder", "CheckpointError", "there is no folder"),
        ("empty", "CheckpointError", "holds no config.json"),
        ({"architectures": ["T5Model"]}, "UnsupportedModel", "not that of its class"),
        ({"hidden_act": "relu"}, "UnsupportedModel", "relu"),
    ],
)
def test_bad_checkpoints(spoil: object, kind: str, says: str, puma: Run, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    if spoil == "empty":
        folder.mkdir()
    elif spoil != "folder":
        tiny.llama(folder)
    if callable(spoil):
        tiny.edit(folder, spoil)
    elif isinstance(spoil, dict):
        tiny.configure_folder(folder, **spoil)
    ran = puma("generate", folder, "the cat", "--tokens", 2)
    assert ran.code == 3 and ran.out == ""
    assert [line.split(": ")[0] for line in ran.err.splitlines()] == ["error", "hint"]
    error = puma("generate", folder, "the cat", "--tokens", 2, "--json").json["error"]
    assert error["kind"] == kind and says in error["message"] and error["hint"]


@pytest.mark.usefixtures("nobody")
def test_debug_shows_the_stack(puma: Run, tmp_path: Path) -> None:
    ran = puma("generate", tmp_path, "the cat", "--debug")
    assert ran.code == 3
    assert ran.err.startswith("Traceback") and "hint: " in ran.err.splitlines()[-1]


def test_an_interrupt_has_its_own_code(puma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("puma.reference.plain_model.PlainModel", interrupted)
    assert puma("generate", "the cat").code == 130
    assert puma("generate", "the cat", "--json").json["error"]["kind"] == "Interrupted"


def test_a_surprise_is_told_without_a_stack(puma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprised(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("puma.reference.plain_model.PlainModel", surprised)
    ran = puma("generate", "the cat")
    assert ran.code == 1 and "ZeroDivisionError" in ran.err and "--debug" in ran.err and "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("generte x", "there is no command generte", "did you mean generate?"),
        ("model list", "there is no command model", "did you mean models?"),
        ("models lst", "there is no command models lst", "did you mean models list?"),
        ("generate x --token 3", "unknown option: --token", "did you mean --tokens?"),
        ("zzzzzz", "there is no command zzzzzz", "choose one of generate, encode"),
    ],
)
def test_a_mistyped_word_meets_the_nearest_one(puma: Run, words: str, message: str, hint: str) -> None:
    ran = puma(*words.split())
    assert ran.code == 2 and f"error: {message}\n" in ran.err and f"hint: {hint}" in ran.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_every_command(puma: Run, shell: str) -> None:
    ran = puma("completion", shell)
    assert ran.code == 0 and "put it into" in ran.err
    assert all(word in ran.out for name in COMMANDS for word in name.split()) and "reveal-logits" in ran.out


def test_bash_can_read_its_completion(puma: Run, tmp_path: Path) -> None:
    script = tmp_path / "puma"
    script.write_text(puma("completion", "bash").out)
    ask = f"source {script}; COMP_WORDS=(puma gen); COMP_CWORD=1; _puma; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "generate"


def test_a_shell_without_completion_is_refused(puma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/ksh")
    ran = puma("completion")
    assert (ran.code == 2 and "no completion for the shell ksh" in ran.err) or "no completion for ksh" in ran.err
