"""What this machine is: processor, memory, versions. It reads what the system says and runs nothing."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from puma.version import VERSION

PACKAGES = ("torch", "numba", "numpy", "cryptography", "msgspec", "safetensors", "tokenizers")
FEATURES = {"aes": "AES-NI", "avx2": "AVX2", "avx512f": "AVX-512", "amx_int8": "AMX"}


def summary() -> str:
    """The machine in a few words, for a measurement's record."""
    cpu = processor()
    return f"{cpu['model']}, {cpu['cores']} cores, {memory_gib():.0f} GiB"


def processor() -> dict[str, Any]:
    """Name, cores that this process may use, and what matters here of the instruction set."""
    info = _read("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", info)
    flags = set((re.search(r"(?:flags|Features)\s*:\s*(.+)", info) or ["", ""])[1].split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = model[1].strip() if model else platform.processor() or platform.machine()
    return {"model": name, "cores": cores} | {flag: flag in flags for flag in FEATURES}


def memory_gib() -> float:
    """Main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def versions() -> dict[str, str]:
    """Of Puma, Python and what Puma stands on."""
    found = {"puma": VERSION, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
