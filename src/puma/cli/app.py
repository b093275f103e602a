"""The command line's front door: parse the words, run one command, turn every error into a line and a hint.

It must answer `puma --help` at once, so commands are loaded when they are called; it must not know models or
parties.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches

from cyclopts import App
from cyclopts.exceptions import CycloptsError, MissingArgumentError, UnknownCommandError

from puma.cli import ui
from puma.errors import PumaError, StoreError, UsageError
from puma.version import VERSION

INTERRUPTED = 130
FULL = (errno.ENOSPC, errno.EDQUOT)
EXIT_CODES = """\
Exit codes: 0 done; 1 failed; 2 an option, argument or prompt that makes no sense; 3 the model's files \
cannot be used; 4 the parties no longer agree, or one is lost; 5 the cluster file, a key or a certificate \
cannot be used; 6 files that are kept are damaged, missing or find no room; 7 a party does not serve this: not \
allowed, beyond a limit, or about to stop; 8 a number left its range, and the answer may be wrong; 130 interrupted.

Errors are one line and a hint; `--debug` adds the stack. `puma COMMAND --help` explains a command.\
"""
GROUPS = {  # name: what its commands are for
    "models": "List, show and delete the models that a cluster serves.",
    "keys": "Make and show the keys by which parties, owners and clients know each other.",
    "cluster": "Write and show the file that says who the three parties are and who may ask.",
    "receipt": "Show and check what the parties signed of requests.",
    "audit": "Ask what means nothing, and find out whether a party deviates.",
}
COMMANDS = {  # name: where it lives, its arguments, what it does
    "generate": ("ask.generate", "[MODEL] [PROMPT]", "Continue a prompt, or all in a file."),
    "encode": ("ask.encode", "MODEL TEXT...", "Embed or classify texts, by a BERT model."),
    "rank": ("ask.rank", "MODEL QUERY TEXT...", "Rank texts for a query, by a cross-encoder."),
    "classify": ("ask.classify", "MODEL TEXT...", "Name the classes of texts, a model's or your own."),
    "answer": ("ask.answer", "MODEL QUESTION TEXT", "Answer a question by quoting a text."),
    "transcribe": ("ask.transcribe", "MODEL FILE", "Write down what is said in a file, by a Whisper model."),
    "chat": ("ask.chat", "[MODEL]", "Talk with a model, a line at a time."),
    "bench": ("measure.bench", "MODEL --prompt N", "Time a request on a published shape or a checkpoint."),
    "cost": ("measure.cost", "MODEL --prompt N", "Count the rounds and bytes of a request without running it."),
    "eval": ("measure.eval", "MODEL --task TASK --data FILE", "Compare secure answers with plaintext on your data."),
    "check": ("measure.check", "MODEL", "Say whether a model's numbers stay within fixed point's limits."),
    "prepare": ("operate.prepare", "[MODEL] --prompt N", "Compute ahead what later requests need no input for."),
    "store": ("operate.store", "", "Show or empty what the parties keep."),
    "gateway": ("ask.gateway", "[MODEL]", "Serve OpenAI's endpoints and a page to chat, on this machine."),
    "doctor": ("operate.doctor", "", "Look at this machine, and let three parties test themselves."),
    "demo": ("ask.demo", "", "See what each party sees, while three of them write a story."),
    "party": ("operate.party", "--as KEY --store DIR", "Run one of three parties, until it is told to stop."),
    "share": ("operate.share", "MODEL --as KEY", "Upload a model's shares to the three parties."),
    "models list": ("operate.models", "--as KEY", "Show the models that a cluster serves."),
    "models show": ("operate.models", "NAME --as KEY", "Show a model's card and its number formats."),
    "models delete": ("operate.models", "NAME --as KEY", "Let all three parties forget a model."),
    "keys new": ("operate.keys", "NAME", "Make a key and its certificate; nothing is overwritten."),
    "keys renew": ("operate.keys", "FILE", "Make the certificate last longer, with the same key and fingerprint."),
    "keys show": ("operate.keys", "FILE", "Show a certificate's fingerprint and how long it is valid."),
    "cluster new": ("operate.cluster", "--party ...", "Write a new cluster file, never over another."),
    "cluster show": ("operate.cluster", "", "Say what a cluster file means, and its digest."),
    "cluster trust": ("operate.cluster", "--client CRT|FINGERPRINT", "Let somebody upload models or ask."),
    "audit run": ("ask.audit", "[MODEL]", "Ask the parties a canary, and compute their part in it again."),
    "audit verify": ("ask.audit", "REPORT", "Check what a report shows of a party that deviated."),
    "receipt show": ("ask.receipt", "FILE", "Show what the parties signed of a request."),
    "receipt verify": ("ask.receipt", "FILE", "Check what the parties signed of a request."),
    "completion": ("operate.completion", "[SHELL]", "Print what a shell needs to complete commands and options."),
}

app = App(
    name="puma",
    help="Private inference for Transformers: three parties answer; none sees the prompt or the weights.",
    help_epilogue=EXIT_CODES,
    version=f"puma {VERSION}",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
for _name, _help in GROUPS.items():
    app.command(App(name=_name, help=_help))
for _name, (_file, _words, _help) in COMMANDS.items():
    _usage = " ".join(filter(None, ["Usage: puma", _name, _words, "[OPTIONS]"]))
    _group, _, _last = _name.rpartition(" ")
    (app[_group] if _group else app).command(f"puma.cli.commands.{_file}:{_last}", name=_last, help=_help, usage=_usage)


def main() -> None:
    """The program: run the command line it was given, and leave with its exit code."""
    ui.stand_in()
    warnings.showwarning = ui.warned
    code = run(sys.argv[1:])
    with contextlib.suppress(OSError):  # nobody reads on, or there was no room, which has been said
        sys.stdout.flush()
    os._exit(code)  # nothing is left to tidy up, and unloading torch takes a second


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    if words[:1] == ["audit"] and words[1:2] not in (["run"], ["verify"], ["--help"], ["-h"]):
        words = ["audit", "run", *words[1:]]
    flags = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in flags or bool(os.environ.get("PUMA_DEBUG"))
    try:
        return int(app(words) or 0)
    except KeyboardInterrupt:
        ui.interrupted("--json" in flags)
        return INTERRUPTED
    except BrokenPipeError:
        return 1  # nobody reads on
    except Exception as error:
        if debug:
            import traceback

            ui.note(traceback.format_exc())
        failure = named(error)
        with contextlib.suppress(OSError):  # nobody hears it
            ui.failed(failure, "--json" in flags)
        return failure.exit_code


def named(error: Exception) -> PumaError:
    """The error as one of ours."""
    if isinstance(error, PumaError):
        return error
    if isinstance(error, CycloptsError):
        return UsageError(*misread(error))
    if isinstance(error, OSError) and error.errno in FULL:
        return StoreError(
            f"there is no room left for {error.filename or 'what is written'}", "make room, and run it again"
        )
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return PumaError(f"this should not have happened: {what}", "please report it, with what --debug prints")


def misread(error: CycloptsError) -> tuple[str, str]:
    """What is wrong with the command line, and a hint."""
    command = " ".join(["puma", *(error.command_chain or ())])
    hint = f"see `{command} --help`"
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        group = "".join(f"{word} " for word in error.command_chain or ())
        names = list(
            dict.fromkeys(name.removeprefix(group).partition(" ")[0] for name in COMMANDS if name.startswith(group))
        )
        word = error.unused_tokens[0]
        near = get_close_matches(word, names, 1, 0.5)
        meant = f"did you mean {group}{near[0]}?" if near else f"choose one of {', '.join(names)}"
        return f"there is no command {group}{word}", meant
    if isinstance(error, MissingArgumentError) and error.argument is not None and not error.argument.tokens:
        return f"{command} needs {error.argument.name}", hint
    error.verbose = False
    text, _, meant = " ".join(str(error).split()).rstrip(".").partition(". Did you mean ")
    return text[:1].lower() + text[1:], f"did you mean {meant.rstrip('?')}?" if meant else hint


if __name__ == "__main__":
    main()
