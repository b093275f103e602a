"""Three party processes on this machine, linked over loopback sockets: for trying, not for secrets.

The launcher plays owner and client; the parties are the same program that real deployments run. Leaving the context, an
error or the launcher's death ends all three.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from puma.errors import PumaError, UsageError
from puma.models import architecture, text
from puma.models.checkpoint import Checkpoint, embedded, load
from puma.models.config import Config
from puma.net.handshake import Identity
from puma.net.tcp import dial
from puma.serving.client import Cost, Progress, Session
from puma.serving.party import SILENCE, Ports, Start

START_SECONDS = 120.0


@dataclass(frozen=True)
class Answer:
    """Generated text, its token ids and what it cost."""

    text: str
    token_ids: list[int]
    cost: Cost


@dataclass(frozen=True)
class Encoding:
    """A normalised sentence embedding, or class logits, and what it cost."""

    values: Tensor
    cost: Cost


class Trio:
    """The three processes and a session with them."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        try:
            self.session = Session(self._start())
        except BaseException:
            self.kill()
            raise

    def _start(self) -> list[Any]:
        session, cookie = os.urandom(16), os.urandom(32)
        digest = hashlib.sha256(b"puma local trio").digest()
        command = [sys.executable, "-m", "puma.serving.party"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        env = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        for rank in range(3):
            process = subprocess.Popen(command, start_new_session=True, env=env, **pipes)
            self._processes.append(process)
            _tell(process, Start(rank, session, digest, cookie))
        ports = [self._port(rank) for rank in range(3)]
        for process in self._processes:
            _tell(process, Ports(ports))
        me = Identity("client", 0, session, digest, cookie)
        met = [dial("127.0.0.1", port, me, ("party", r), START_SECONDS, SILENCE) for r, port in enumerate(ports)]
        return [m.link for m in met]

    def _port(self, rank: int) -> int:
        line = self._processes[rank].stdout.readline()  # type: ignore[union-attr]
        if not line.strip().isdigit():
            raise PumaError(f"P{rank} did not start", "run `puma doctor`; PUMA_DEBUG=1 shows the parties' errors")
        return int(line)

    @property
    def pids(self) -> list[int]:
        """Process ids of P0, P1, P2."""
        return [p.pid for p in self._processes]

    def close(self) -> None:
        """End the session; a party that does not leave by itself is killed."""
        self.session.close()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2.0)
        self.kill()

    def kill(self) -> None:
        """End the processes, however they are."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def __enter__(self) -> Trio:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close() if kind is None else self.kill()


def _tell(process: subprocess.Popen[str], words: msgspec.Struct) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(msgspec.json.encode(words).decode() + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        raise PumaError("a party process died while starting", "run `puma doctor`") from None


class LocalCluster:
    """A checkpoint served by three processes on this machine.

    `source` is a folder, a hub name or None for the embedded model. Raises the errors of puma.errors.
    """

    def __init__(self, source: str | Path | None = None, progress: Progress | None = None) -> None:
        self.checkpoint: Checkpoint = load(embedded() if source is None else source)
        self.config: Config = self.checkpoint.config
        self.params: Mapping[str, Tensor] = self.checkpoint.fold()
        self.tokenizer = text.open_tokenizer(self.checkpoint.tokenizer)
        self._trio = Trio()
        try:
            self.session.share(self.config, self.params, progress)
        except BaseException:
            self._trio.kill()
            raise

    @property
    def session(self) -> Session:
        return self._trio.session

    @property
    def pids(self) -> list[int]:
        """Process ids of P0, P1, P2."""
        return self._trio.pids

    def prompt_ids(self, prompt: str, tokens: int) -> list[int]:
        """Token ids of a prompt, checked against the context."""
        if architecture(self.config).family != "causal":
            raise UsageError(f"{self.checkpoint.name} does not generate text", "use encode, or a LLaMA or GPT-2 model")
        if tokens < 1:
            raise UsageError(f"cannot generate {tokens} tokens", "ask for at least one")
        ids = text.encode(self.tokenizer, self.config, prompt).ids
        text.check_length(self.config, len(ids), tokens)
        return ids

    def stream(self, prompt: str, tokens: int = 32) -> Iterator[int]:
        """Token ids as they are decided; `cost` afterwards."""
        return self.session.generate(self.prompt_ids(prompt, tokens), tokens)

    def generate(self, prompt: str, tokens: int = 32) -> Answer:
        """Greedy continuation of a prompt by a public number of tokens."""
        ids = list(self.stream(prompt, tokens))
        return Answer(self.decode(ids), ids, self.cost)

    def encode(self, sentence: str) -> Encoding:
        """Class logits if the model has a classification head, else the mean of the token states, normalised."""
        if architecture(self.config).family != "encoder":
            raise UsageError(f"{self.checkpoint.name} is no encoder", "use generate, or a BERT model")
        tokens = text.encode(self.tokenizer, self.config, sentence)
        text.check_length(self.config, len(tokens.ids))
        labels = bool(self.config.labels)  # type: ignore[union-attr]
        values = self.session.encode(tokens.ids, "logits" if labels else "pooled", tokens.types)
        return Encoding(values if labels else normalised(values), self.cost)

    def decode(self, ids: Sequence[int]) -> str:
        return text.decode(self.tokenizer, ids)

    @property
    def cost(self) -> Cost:
        """What the last request cost."""
        if self.session.cost is None:
            raise UsageError("no request has finished yet", "run generate or encode first")
        return self.session.cost

    def close(self) -> None:
        self._trio.close()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *error: Any) -> None:
        self._trio.__exit__(*error)


def normalised(x: Tensor) -> Tensor:
    """x over its Euclidean norm."""
    return x / torch.linalg.vector_norm(x)
