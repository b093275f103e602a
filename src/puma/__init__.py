"""Puma: private inference for Transformers. Three parties answer; none of them sees the prompt or the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from puma.errors import PumaError
    from puma.serving.asking import Answer, Encoding
    from puma.serving.local import LocalCluster
    from puma.serving.remote import RemoteCluster, connect

__version__ = "0.1.0"
__all__ = ["Answer", "Encoding", "LocalCluster", "PumaError", "RemoteCluster", "__version__", "connect"]

_ROOMS = {
    "Answer": "asking",
    "Encoding": "asking",
    "LocalCluster": "local",
    "RemoteCluster": "remote",
    "connect": "remote",
}


def __getattr__(name: str) -> Any:
    """Import lazily: the command line must answer before torch is loaded."""
    from importlib import import_module

    if name == "PumaError":
        return import_module("puma.errors").PumaError
    if name in _ROOMS:
        return getattr(import_module(f"puma.serving.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'puma' has no attribute {name!r}")
