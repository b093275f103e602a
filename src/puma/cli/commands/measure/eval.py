"""`puma eval`: secure answers beside plaintext ones on a file of examples, resumable; the measures are measure's.

Records go into a file beside the results as they come; its first line says what they are records of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from puma.cli import ui
from puma.cli.options import FITTED, HUMAN, Count, Fitting, Flag, Output, Profile
from puma.errors import UsageError

if TYPE_CHECKING:
    from puma.measure.evaluation import Prompt, Record
    from puma.reference.plain_model import PlainModel

NEW = 32  # tokens of a generated text, unless said otherwise


def eval(
    model: str,
    /,
    *,
    adapter: str | None = None,
    task: Literal["classification", "similarity", "perplexity", "generation"],
    data: Path,
    text: str | None = None,
    label: str | None = None,
    limit: Count | None = None,
    tokens: Count | None = None,
    split: str | None = None,
    clear: Flag = False,
    approximation: Profile = "spline",
    resume: Path | None = None,
    fitting: Fitting = FITTED,
    output: Output = HUMAN,
) -> None:
    """Evaluate a model of your own on data: secure answers against plaintext.

    Parameters
    ----------
    model
        A checkpoint's folder, a GGUF file, a hub name, or stories, the embedded model.
    adapter
        A LoRA adapter to merge into it: a folder as peft writes it, or a name on the hub.
    task
        What is asked of the model, and by which measures answers are judged.
    data
        A table (.csv, or columns between tabs), or a text for perplexity and generation. For images, a table that names
        their files, or a file in MNIST's format.
    text
        The column of the text, or two columns with a comma between, by name or by number from 1.
    label
        The column of what is right; for images in MNIST's format, the file of their labels.
    limit
        Only so many examples.
    tokens
        New tokens of a generation (32 if left out), or the first tokens of each document for perplexity (all).
    split
        A pattern between the documents of a text; blank lines if left out.
    clear
        Compute in fixed point without sharing, in this process: for large sweeps.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    resume
        A file for the records of examples; what it holds already is not computed again.
    """
    from puma.measure.evaluation import TASKS, summary
    from puma.reference.plain_model import PlainModel

    started = time.perf_counter()
    for name, number in (("limit", limit), ("tokens", tokens)):
        if number is not None and number < 1:
            raise UsageError(f"--{name} {number} leaves nothing", "pass 1 or more")
    new = tokens if tokens is not None else NEW if task == "generation" else 0
    with ui.progress(output.json) as progress:
        plain = PlainModel(model, adapter)
        plain.plan(fitting.settings(approximation), progress)
        if plain.causal != (task in ("perplexity", "generation")):
            raise UsageError(f"{plain.name} does no {task}", "choose a task that fits the model")
        if task == "classification" and not plain.labels:
            raise UsageError(f"{plain.name} has no classification head", "use a fine-tuned checkpoint")
        examples = _examples(plain, task, data, text, label, split, limit)
        prompts = [TASKS[task].prompt(plain, example, new) for example in examples]
        asked = {"model": plain.name, "task": task, "tokens": new, "clear": clear, "approximation": approximation}
        records = _Records(resume, asked | {"examples": _digest(prompts)}, len(prompts))
        with _sessions(plain, clear, approximation, progress) as sessions:
            _work(plain, task, prompts, sessions, new, records, progress)
        found = summary(TASKS[task], records.all())
    seconds = time.perf_counter() - started
    if output.json:
        mode = {"clear": clear} | ui.profile(approximation)
        ui.answer({"task": task, "examples": len(prompts)} | found | {"seconds": seconds} | mode)
        return
    _show(found, len(prompts), seconds, "in the clear" if clear else "by three parties")


def _examples(
    model: PlainModel, task: str, data: Path, text: str | None, label: str | None, split: str | None, limit: int | None
) -> Any:
    from puma.measure.examples import read_images, read_table, read_text
    from puma.models import inputs

    if not inputs(model.config).tokenized:
        if task != "classification":
            raise UsageError(f"{model.name} does no {task}", "images are classified")
        found = read_images(data, text, label, limit)
    elif text is None:
        if task in ("classification", "similarity"):
            raise UsageError(f"{task} needs the columns of a table", "pass --text COL, and --label COL")
        found = read_text(data, split, limit)
    else:
        if task in ("classification", "similarity") and not label:
            raise UsageError(f"{task} needs what is right", "pass --label COL")
        found = read_table(data, text.split(","), label, limit)
    if not found:
        raise UsageError(f"{data} holds no example", "look into the file")
    return found


@contextlib.contextmanager
def _sessions(model: PlainModel, clear: bool, approximation: str, progress: ui.Progress) -> Iterator[dict[str, Any]]:
    """What is compared: float, the profile's functions in float, and the secure computation or its like."""
    from puma.local.cluster import LocalCluster
    from puma.reference.fixed_session import FixedSession
    from puma.reference.float_session import Plain

    found: dict[str, Any] = {"plaintext": Plain(model.config, model.params)}
    if approximation != "spline":
        found["approximated"] = Plain(model.config, model.params, approximation)
    if clear:
        yield found | {"secure": FixedSession(model.config, model.params, approximation)}
        return
    with LocalCluster(model, progress, approximation=approximation) as cluster:
        yield found | {"secure": cluster.session}


def _work(
    model: PlainModel, task: str, prompts: list[Prompt], sessions: dict[str, Any], new: int, records: _Records,
    progress: ui.Progress,
) -> None:  # fmt: skip
    from puma.measure.evaluation import TASKS, batches

    left = [i for i in range(len(prompts)) if i not in records.found]
    progress("evaluating", len(prompts) - len(left), len(prompts))
    for batch in batches(model, [prompts[i] for i in left], new if task == "generation" else 1):
        places = [left[i] for i in batch]
        records.add(places, TASKS[task].records(model, [prompts[i] for i in places], sessions, new))
        progress("evaluating", len(records.found), len(prompts))


def _digest(prompts: list[Prompt]) -> str:
    """Which examples these are."""
    content = json.dumps([[[_listed(row.ids) for row in p.rows], p.label] for p in prompts])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _listed(ids: Any) -> list[Any]:
    return ids if isinstance(ids, list) else ids.tolist()


class _Records:
    """Records by the place of their example; in a file, too, if there is one."""

    def __init__(self, path: Path | None, asked: dict[str, Any], count: int) -> None:
        self._path, self._count, self.found = path, count, dict[int, Any]()
        if path is None:
            return
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            if lines and json.loads(lines[0]) != asked:
                raise UsageError(f"{path} holds records of another evaluation", "name another file with --resume")
            for line in lines[1:]:
                with contextlib.suppress(ValueError):  # the last line may have been cut off
                    place, record = json.loads(line)
                    self.found[place] = record
            path.write_text("\n".join([json.dumps(asked), *map(json.dumps, self.found.items()), ""]), encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot hold records ({error})", "name another file with --resume") from error

    def add(self, places: list[int], records: list[Record]) -> None:
        new = dict(zip(places, records, strict=True))
        self.found |= new
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(item) + "\n" for item in new.items())

    def all(self) -> list[Record]:
        return [self.found[i] for i in range(self._count)]


def _show(found: dict[str, Any], examples: int, seconds: float, how: str) -> None:
    kinds = [name for name in found if name != "difference"]
    rows = [["measure", *kinds, "difference"]]
    for key in found["plaintext"]:
        values = [found[name][key] for name in kinds] + [found["difference"][key]]
        rows.append([key, *(f"{value:.5g}" for value in values)])
    ui.table(rows)
    for key in found["difference"].keys() - found["plaintext"].keys():
        value = found["difference"][key]
        ui.say(f"{key.replace('_', ' ')}: {f'{value:.5g}' if isinstance(value, float) else value}")
    ui.say(f"{examples} examples {how}, {seconds:.1f} s")
