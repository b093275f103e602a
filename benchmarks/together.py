"""What askers cost who go through the parties together: a gateway of the embedded model, asked by one and by several.

    python -m benchmarks.together --askers 16 --tokens 24

Each round asks once alone and once by all at the same time, so that whatever else the machine does falls on both. The
figure is the wall time of a whole answer, divided by its tokens; all answers must be those that were given alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from puma.gateway.server import configured, listen
from puma.gateway.service import Gateway
from puma.gateway.settings import Settings
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel

BEGINNINGS = ("Once upon a time", "The little dog", "Lily and Tom", "One day a bird", "In the garden", "A big red ball")


@contextmanager
def gateway(together: int) -> Iterator[str]:
    """The address of a gateway in this process, its parties in three others."""
    model = PlainModel()
    served = Gateway(model, lambda: LocalCluster(model), Settings("stories", waiting=64, together=together))
    bound = listen("127.0.0.1", 0)
    server = configured(served)
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1/completions"
    finally:
        server.should_exit = True
        thread.join()


def ask(url: str, prompt: str, tokens: int) -> str:
    """One answer."""
    body = {"model": "stories", "prompt": prompt, "max_tokens": tokens, "temperature": 0}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.loads(answer.read())["choices"][0]["text"]


def timed(url: str, prompts: list[str], tokens: int) -> tuple[float, list[str]]:
    """Milliseconds a token until the last of these askers has its answer, and the answers."""
    started = time.perf_counter()
    with ThreadPoolExecutor(len(prompts)) as askers:
        answers = list(askers.map(lambda prompt: ask(url, prompt, tokens), prompts))
    return 1000 * (time.perf_counter() - started) / tokens, answers


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("askers", 16), ("tokens", 24), ("rounds", 3), ("together", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    prompts = [BEGINNINGS[i % len(BEGINNINGS)] for i in range(asked.askers)]
    alone, all_of_them = [], []
    with gateway(asked.together) as url:
        wanted = {prompt: ask(url, prompt, asked.tokens) for prompt in BEGINNINGS}
        for _ in range(asked.rounds):
            alone.append(timed(url, prompts[:1], asked.tokens)[0])
            milliseconds, answers = timed(url, prompts, asked.tokens)
            assert answers == [wanted[prompt] for prompt in prompts], "an answer changed in company"
            all_of_them.append(milliseconds)
    one, several = statistics.median(alone), statistics.median(all_of_them)
    found = {"askers": asked.askers, "tokens": asked.tokens, "alone_ms": one, "together_ms": several}
    print(json.dumps({name: round(value, 1) for name, value in found.items()} | {"ratio": round(several / one, 2)}))


if __name__ == "__main__":
    main()
