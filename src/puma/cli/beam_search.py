"""`puma generate --beams`: the likeliest text instead of the likeliest next token, and again."""

from __future__ import annotations

from typing import Any

from puma.cli import ui
from puma.cli.generation import asked_one, comparison, one_prompt, shown
from puma.cli.options import Chance, Fitting, Output, Spoken
from puma.cli.where import Where
from puma.errors import PolicyError


def search(
    model: str | None, prompt: str | None, tokens: int, how: tuple[int, float, Any, Spoken], compare: bool,
    chance: Chance, approximation: str, fitting: Fitting, where: Where, output: Output,
) -> None:  # fmt: skip
    """Search, show what was found and what it cost; `how`: beams, length penalty, when to stop, and
    languages."""
    from puma.client.beam_search import Beams
    from puma.client.session import LOGITS_HINT

    source, prompt = one_prompt(model, prompt)
    if where.cluster is None and not chance.reveal_logits:
        raise PolicyError("beam search needs logits", f"pass --reveal-logits, as the owner; or {LOGITS_HINT}")
    count, penalty, stop, spoken = how
    Beams(count, tokens, penalty=penalty)  # refused before anything is loaded
    made = (None, approximation, fitting, spoken, None)
    cluster, ids, loaded = asked_one(where, source, prompt, tokens, made, chance, output)
    clear = cluster.model
    with cluster, ui.progress(output.json) as progress:
        progress("searching", 0, tokens)
        found = cluster.search(
            prompt,
            tokens,
            count,
            penalty,
            stop,
            lambda steps: progress("searching", steps, tokens),
            spoken.begin,
            language=spoken.language,
        )
    where.keep(cluster)
    agreed: dict[str, Any] = {}
    if compare:
        begun = clear.begun(spoken.begin)
        beams = clear.searching(ids, count, tokens, penalty, begun)
        list(clear.session.search(ids, beams, stop=True, begun=begun))  # type: ignore[attr-defined]
        plain = beams.best
        agreed = {"text": clear.decode(plain), "token_ids": plain, "agree": plain == found.token_ids}
    cost = found.cost
    if output.json:
        seconds = {"load": loaded, "prefill": cost.prefill, "decode": cost.seconds - cost.prefill}
        answer = {"text": found.text, "token_ids": found.token_ids, "seconds": seconds, "rounds": cost.rounds}
        more = ui.profile(approximation) | ({"compare": agreed} if agreed else {})
        ui.answer(answer | {"bytes": cost.bytes(), "beams": count} | more | ui.doubtful(cluster))
        return
    ui.say(shown(clear, ids, found.token_ids))
    if agreed:
        ui.say(comparison(agreed, found.token_ids))
    ui.say(ui.cost_line(cost, len(found.token_ids)))
    where.say_local()
