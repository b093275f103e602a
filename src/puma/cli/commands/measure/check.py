"""`puma check`: a model's number formats, and whether they hold, before anybody deploys it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from puma.cli import ui
from puma.cli.options import FITTED, HUMAN, Count, Fitting, Flag, Output, Profile
from puma.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from puma.client.model_info import ModelInfo
    from puma.client.tokens.rules import Rules
    from puma.measure.range_check import Findings
    from puma.mpc.clear import Note
    from puma.reference.plan import Placed

SHOWN = 12  # places, those nearest to their limits


def check(
    model: str | None = None,
    /,
    *,
    config: Path | None = None,
    adapter: str | None = None,
    data: Path | None = None,
    text: str | None = None,
    limit: Count = 20,
    approximation: Profile = "spline",
    all: Flag = False,
    fitting: Fitting = FITTED,
    output: Output = HUMAN,
) -> int:
    """Show a model's number formats and where they come from, and run it in fixed point, in the clear, on texts.

    Parameters
    ----------
    model
        A checkpoint's folder, a GGUF file, a hub name, or stories, the embedded model.
    config
        A config.json alone, instead of a model: say which parts of it are implemented, and what would be refused.
    adapter
        A LoRA adapter to merge into it: a folder as peft writes it, or a name on the hub.
    data
        A text, or a table, to run the model on; a few sentences of many kinds if left out.
    text
        The column of the table, by name or number; without --data, a text to run the model on.
    limit
        Only so many texts of the file.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    all
        Show every place.
    """
    if model is not None and model.endswith(".json"):
        model, config = None, config or Path(model)
    if (model is None) is (config is None):
        raise UsageError("what is to be checked?", "pass a model, or a config.json with --config")
    if config is not None:
        return _inspect(config, output)
    assert model is not None
    from puma.measure import range_check as checking
    from puma.models import vectors
    from puma.reference.plain_model import PlainModel

    with ui.progress(output.json) as progress:
        clear = PlainModel(model, adapter)
        ui.left_aside(clear.checkpoint.beyond)
        plan = clear.plan(fitting.settings(approximation), progress)
        prompts = checking.samples(clear, _texts(data, text, limit))
        if not prompts:
            raise UsageError(f"{clear.name} has no token for any of the texts", "pass a text of its own with --data")
        progress("computing in the clear", 0, 1)
        found, pools = checking.check(clear, plan, prompts, approximation), vectors(clear.config)
    if output.json:
        made = {"pooling": pools} if pools else {}
        told = {"model": clear.name, "holds": not found.broken} | made | ui.profile(approximation) | _told(found)
        ui.answer(told | {"rules": _rules(clear.rules)})
    else:
        if pools:
            ui.say(f"vectors of texts: {pools}")
        _show_rules(clear)
        _show_plan(found, all)
        _show_run(found, all)
    return CheckpointError.exit_code if found.broken else 0


def _inspect(config: Path, output: Output) -> int:
    from puma.models.files.source import read_json
    from puma.models.inspection import inspected

    found = inspected(read_json(config))
    refused = [{"message": error.message, "hint": error.hint} for error in found.refused]
    if output.json:
        names = {"class": found.kind, "supported": not refused, "parts": found.parts, "questions": found.questions}
        ui.answer(names | {"refused": refused})
    else:
        ui.say(f"{found.kind}: {'not supported' if refused else 'supported'}")
        for name, what in found.parts.items():
            ui.say(f"  {name}: {what}")
        if found.questions:
            ui.say(f"  answers: {'; '.join(found.questions)}")
        for each in refused:
            ui.say(f"refused: {each['message']} ({each['hint']})")
        if not refused:
            ui.say("Weights may still be refused, for numbers that no format holds: check the checkpoint itself.")
    return found.refused[0].exit_code if found.refused else 0


def _texts(data: Path | None, text: str | None, limit: int) -> Sequence[str]:
    from puma.measure.examples import read_table, read_text
    from puma.measure.range_check import SAMPLE

    if data is None:
        return SAMPLE if text is None else [text]
    examples = read_text(data, None, limit) if text is None else read_table(data, [text], None, limit)
    return [example.texts[0] for example in examples]


def _told(found: Findings) -> dict[str, Any]:
    import msgspec

    places = [asdict(note) | {"used": note.used} for note in found.notes]
    return {
        "texts": found.texts, "tokens": found.tokens, "places": places, "cost": asdict(found.cost),
        "plan": msgspec.to_builtins(found.plan),
    }  # fmt: skip


def _rules(rules: Rules) -> dict[str, Any]:
    """What generation_config.json asks for, by who follows it."""
    return {"with_logits": rules.from_logits, "samples": rules.chances, "ignored": rules.others}


def _show_rules(model: ModelInfo) -> None:
    from puma.client.tokens.rules import UNSEEN

    told = [words for words in (model.unfollowed(UNSEEN), model.rules.undrawn()) if words]
    for words in told:
        ui.say(words)
    if told:
        ui.say()


def _show_plan(found: Findings, every: bool) -> None:
    plan, cost = found.plan, found.cost
    groups: dict[tuple[str, str], list[Placed]] = {}
    for place in plan.places:
        name = place.name if every else re.sub(r"\.\d+\.", ".*.", place.name)
        groups.setdefault((name, place.kind), []).append(place)
    rows = [["place", "what", "below 2^", "else 2^", "seen", "proven", "calibrated", "margin"]]
    for (name, _), group in groups.items():
        reaches = sorted({place.reach for place in group})
        seen, proven = max(place.seen for place in group), sum(place.proven for place in group)
        margins = [place.margin for place in group if not place.proven]
        row = [
            name or "all layers",
            group[0].what,
            f"{reaches[0]} to {reaches[-1]}" if reaches[1:] else str(reaches[0]),
        ]
        row += [str(group[0].default), f"{seen:.4g}", str(proven), str(len(group) - proven)]
        rows.append([*row, f"{min(margins):.1f}" if margins else ""])
    ui.table(rows)
    ui.say(
        f"formats by {plan.texts} texts of {plan.tokens} tokens with a margin of {plan.margin} bits, and by proofs for "
        f"{sum(place.proven for place in plan.places)} of {len(plan.places)} places"
    )
    change = 100 * (cost.bytes / cost.default_bytes - 1)
    ui.say(
        f"{cost.tokens} tokens take {cost.bytes / 1e6:,.1f} MB and {cost.rounds:,} rounds; {change:+.1f} % beside the "
        f"usual formats ({cost.default_bytes / 1e6:,.1f} MB, {cost.default_rounds:,} rounds)"
    )
    ui.say()


def _show_run(found: Findings, every: bool) -> None:
    ui.say(f"{found.texts} texts of {found.tokens} tokens computed in fixed point")
    notes: list[Note] = sorted(found.notes, key=lambda note: -note.used)
    rows: list[Any] = [["place", "component", "what", "largest", "limit", "used"]]
    for note in notes if every else notes[:SHOWN]:
        used = f"{100 * note.used:.1f} %"
        rows.append([note.where, note.component, note.what, f"{note.largest:.5g}", f"{note.limit:.5g}", used])
    ui.table(rows)
    if found.broken:
        first = found.broken[0]
        ui.say(f"does not hold: the first place is {first.where}, {first.what} ({first.component})")
        ui.say("hint: calibrate on texts like these with --calibrate, or leave more room with --margin")
    else:
        ui.say("holds: no number came beyond its limit")
