"""`puma generate --prompts FILE`: several prompts in one request, which takes the rounds of the longest alone.

Nothing is computed here, nor are tokens shown before all have come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from puma.cli import ui
from puma.cli.options import Chance, Fitting, Output, Spoken
from puma.cli.where import Where, opened
from puma.errors import UsageError

if TYPE_CHECKING:
    from puma.client.model_info import ModelInfo
    from puma.client.sampling import Sampling


def read(path: Path) -> list[str]:
    """The lines of a file that are not blank."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error})", "pass a text file with a prompt in each line") from error
    found = [line for line in lines if line.strip()]
    if not found:
        raise UsageError(f"{path} holds no prompt", "write one in each line")
    return found


def generate_all(
    source: str | None, prompts: list[str], tokens: int, compare: bool, chance: Chance,
    made: tuple[Path | None, str, str, Fitting, Spoken, str | None], output: Output, where: Where,
) -> None:  # fmt: skip
    """Continue all prompts, and print them in their order; `made` are store, approximation, lengths, formats,
    languages, and what makes drafts."""
    store, approximation, lengths, fitting, spoken, draft = made

    from puma.client.drafts import opening as drafts
    from puma.models.text import check_batch

    def checked(clear: ModelInfo) -> list[list[int]]:
        clear.begun(spoken.begin)
        ids = [clear.prompt_ids(prompt, tokens, language=spoken.language) for prompt in prompts]
        check_batch(clear.config, [len(prompt) for prompt in ids], tokens)
        drafts.opened(draft, clear)
        return ids

    how = sampling(chance, compare, where)
    started = time.perf_counter()
    with ui.progress(output.json) as progress:
        cluster, ids = opened(where, source, checked, progress, store, approximation, chance.reveal_logits, fitting)
    loaded, clear = time.perf_counter() - started, cluster.model
    ui.undrawn("" if chance.sampling else clear.rules.undrawn())
    with cluster:
        bucket = cluster.bucket(ids, tokens, lengths, 0, spoken.begin)
        steps = cluster.steps(ids, tokens, None, how, bucket, drafts.opened(draft, clear))
        found = _all_tokens(steps, len(ids), tokens, output.json)
        cost, ruled = cluster.cost, cluster.session.reveals
    where.keep(cluster)
    results = [_result(clear, *parts, compare, ruled, spoken.begin) for parts in zip(prompts, ids, found, strict=True)]
    if output.json:
        seconds = {"load": loaded, "prefill": cost.prefill, "decode": cost.seconds - cost.prefill}
        answer = {"results": results, "seconds": seconds, "rounds": cost.rounds, "bytes": cost.bytes()}
        ahead = (ui.prepared(cost) if store else {}) | ui.drafted(cost)
        ui.answer(answer | ui.doubtful(cluster) | ui.profile(approximation) | ahead)
        return
    for result, before in zip(results, ids, strict=True):
        ui.say(shown(clear, before, result["token_ids"]))
        if "compare" in result:
            ui.say(comparison(result["compare"], result["token_ids"]))
        ui.say()
    ui.say(ui.cost_line(cost, len(results) * tokens))
    where.say_local()


def shown(clear: ModelInfo, ids: list[int], found: list[int]) -> str:
    """An answer for people: behind the prompt that it continues, or alone where the model reads prompts apart."""
    from puma.models import inputs

    return clear.decode(found if inputs(clear.config).apart else [*ids, *found])


def one_prompt(model: str | None, prompt: str | None) -> tuple[str | None, str]:
    """The model and the prompt, where the model may be left out."""
    if model is None:
        raise UsageError("puma generate needs PROMPT", "pass one, or --prompts FILE with one in each line")
    return (None, model) if prompt is None else (model, prompt)


def asked_one(
    where: Where, source: str | None, prompt: str, tokens: int,
    made: tuple[Path | None, str, Fitting, Spoken, str | None], chance: Chance, output: Output,
) -> tuple[Any, list[int], float]:  # fmt: skip
    """The parties, ready to continue one prompt, its token ids, and the seconds that it took; `made` are store,
    approximation, formats, languages, and what makes drafts."""
    from puma.client.drafts.opening import opened as drafts

    store, approximation, fitting, spoken, draft = made
    started = time.perf_counter()

    def checked(clear: ModelInfo) -> list[int]:
        drafts(draft, clear)
        return clear.prompt_ids(prompt, tokens + len(clear.begun(spoken.begin)), language=spoken.language)

    with ui.progress(output.json) as progress:
        cluster, ids = opened(
            where, source, checked, progress, store, approximation, chance.reveal_logits, fitting,
        )  # fmt: skip
    return cluster, ids, time.perf_counter() - started


def sampling(chance: Chance, compare: bool, where: Where) -> Sampling:
    """How tokens are chosen; refused beforehand if it cannot be done, or compared."""
    from puma.client.sampling import Sampling

    how = Sampling.of(**chance.sampling)
    if not how.greedy and compare:
        raise UsageError("samples cannot be compared with the plain model's", "leave out --compare")
    if not how.greedy and where.cluster is None and not chance.reveal_logits:
        how.need_logits()
    return how


def _all_tokens(steps: Iterator[list[list[int]]], prompts: int, tokens: int, as_json: bool) -> list[list[int]]:
    """The new tokens of each prompt."""
    found: list[list[int]] = [[] for _ in range(prompts)]
    with ui.progress(as_json) as progress:
        progress("the parties read the prompts", 0, 1)
        for step in steps:
            for mine, new in zip(found, step, strict=True):
                mine += new
            progress("generating", min(map(len, found)), tokens)
    return found


def _result(
    clear: ModelInfo, prompt: str, ids: list[int], found: list[int], compare: bool, ruled: bool, begin: str
) -> dict[str, Any]:  # fmt: skip
    result = {"prompt": prompt, "text": clear.decode(found), "token_ids": found}
    return result | ({"compare": agreement(clear, ids, found, ruled, begin)} if compare else {})


def agreement(clear: Any, ids: list[int], found: list[int], ruled: bool, begin: str = "") -> dict[str, Any]:
    """The plain model's answer, and whether it is the same; `ruled`: both by the model's own rules."""
    plain = clear.greedy(ids, len(found), ruled, clear.begun(begin))
    return {"text": clear.decode(plain), "token_ids": plain, "agree": plain == found}


def comparison(agreed: dict[str, Any], found: list[int]) -> str:
    """The same in words."""
    if agreed["agree"]:
        return f"The plain model gives the same {len(found)} tokens."
    first = next(i for i, (a, b) in enumerate(zip(agreed["token_ids"], found, strict=False)) if a != b)
    return f"The plain model differs from token {first + 1} on: {agreed['text']}"
