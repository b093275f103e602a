"""`puma doctor`: is this machine fit to run Puma, and do three parties on it agree on a small computation?"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from puma.cli import machine, ui
from puma.cli.options import HUMAN, Output
from puma.errors import PumaError

BOUND = 2e-3  # of the self-test's error
KEPT = "{compiled} of {total} compiled, kept in {folder}"
LOST = "compiled again by every process: no folder can be written; set NUMBA_CACHE_DIR to one"


def doctor(*, output: Output = HUMAN) -> int:
    """Versions, what the processor offers, the compiled kernels, and a self-test of three parties.

    Exits with 0 if the self-test passes, with 1 or the error's own code if not.
    """
    from puma.kernels.startup import warmup

    facts: dict[str, Any] = {"versions": machine.versions(), "processor": machine.processor()}
    facts |= {"memory_gib": round(machine.memory_gib(), 1), "kernels": asdict(warmup.state())}
    if not output.json:
        _show(facts)
    with ui.progress(output.json) as progress:
        result, code = _selftest(progress)
    if output.json:
        ui.answer(facts | {"selftest": result})
    elif result["ok"]:
        ui.say(f"self-test    passed: three parties agree, in {result['seconds']:.2f} s")
    else:
        ui.say(f"self-test    FAILED: {result['message']}")
        if result["hint"]:
            ui.say(f"             {result['hint']}")
    return code


def _selftest(progress: ui.Progress) -> tuple[dict[str, Any], int]:
    """GeLU of a few numbers, by three processes, against torch."""
    import torch

    from puma.engine.engine import SELFTEST
    from puma.local.cluster import Trio

    started = time.perf_counter()
    try:
        with Trio(progress) as trio:
            progress("self-test", 0, 1)
            found = trio.session.selftest()
    except PumaError as error:
        return {"ok": False, "message": error.message, "hint": error.hint}, error.exit_code
    expected = torch.nn.functional.gelu(torch.tensor(SELFTEST, dtype=torch.float64))
    far = float((found - expected).abs().max())
    ok = far < BOUND
    message = "" if ok else f"the result is off by {far:.3g}, more than {BOUND:g}"
    hint = "" if ok else "please report it, with the output of `puma doctor --json`"
    result = {"ok": ok, "message": message, "hint": hint, "max_abs_error": far}
    return result | {"seconds": time.perf_counter() - started}, 0 if ok else 1


def _show(facts: dict[str, Any]) -> None:
    kernels, cpu = facts["kernels"], facts["processor"]
    named = [(machine.FEATURES[flag], cpu[flag]) for flag in machine.FEATURES]
    ui.say("versions     " + ", ".join(f"{name} {number}" for name, number in facts["versions"].items()))
    ui.say(f"processor    {cpu['model']}, {cpu['cores']} cores")
    ui.say("             " + ", ".join(name if there else f"no {name}" for name, there in named))
    ui.say(f"memory       {facts['memory_gib']:.0f} GiB")
    ui.say("kernels      " + (KEPT if kernels["folder"] else LOST).format(**kernels))
