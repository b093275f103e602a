"""A process that has loaded a party's program once and forks a party whenever its launcher asks.

Loading torch and the kernels takes longer than anything else in the life of a short request, and would be done three
times. The process computes nothing, starts no thread and holds no secret, so what its children have in common is code:
each draws its keys after it has been forked. It must not know what a party does.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from puma.kernels.startup import warmup

FLAG = "--nursery"  # standard input is then a socket to the launcher
IDLE_SECONDS = 20.0  # without a child and a request, before it ends
STREAMS = 3  # standard input, output and errors of a party come with the request
MOST = 1 << 22  # bytes of a request

Program = Callable[[], int]


def begin(party: Program) -> NoReturn:
    """Be a party, or where the launcher says so the nursery of several; ends the process."""
    if FLAG in sys.argv:
        serve(party)
        os._exit(0)
    _leave(party)


def serve(party: Program) -> None:
    """Fork a party for each request, until the launcher is gone or asks for nothing any more.

    A request is a line of JSON (the environment and the folder that the party gets) with three descriptors; the answer
    is the party's process id with a descriptor of that process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher ends us
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here: the launcher holds a descriptor of each
    link = socket.socket(fileno=os.dup(0))
    while (request := _request(link)) is not None:
        words, streams = request
        warmup.compile_kernels()  # the launcher has seen to it that they only need loading
        gc.freeze()  # what is here already stays in pages that all have in common
        pid = os.fork()
        if not pid:
            link.close()
            _become(words, streams)
            _leave(party)
        for stream in streams:
            os.close(stream)
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            link.sendall(b"0\n")
            continue
        socket.send_fds(link, [f"{pid}\n".encode()], [handle])
        os.close(handle)


def _request(link: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next request, or None when there will be none."""
    while not select.select([link], [], [], IDLE_SECONDS)[0]:
        if not _children():
            return None
    data, streams = b"", list[int]()
    while not data.endswith(b"\n"):
        more, came, _, _ = socket.recv_fds(link, MOST, STREAMS)
        if not more:
            return None
        data, streams = data + more, streams + came
    return json.loads(data), streams


def _children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _become(words: dict[str, Any], streams: list[int]) -> None:
    """In the child: what a program of its own would have begun with."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(words["environment"])
    os.chdir(words["folder"])


def _leave(party: Program) -> NoReturn:
    """Be a party to its end. Nothing is left to tidy up then, and unloading the libraries takes seconds."""
    if os.environ.get("PUMA_DEBUG"):
        faulthandler.enable()  # a crash, too, then says where
    code = 1
    try:
        code = party()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
