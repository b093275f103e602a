"""Puma: private inference for Transformers. Three parties answer; none of them sees the prompt or the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from puma.version import VERSION

if TYPE_CHECKING:
    from puma.client.chat.conversation import Conversation
    from puma.client.client import Answer, Encoding
    from puma.client.connect import RemoteCluster, connect
    from puma.client.evidence import verify as receipt
    from puma.client.evidence.receipt import Receipt
    from puma.errors import PumaError
    from puma.local.cluster import LocalCluster

__version__ = VERSION
__all__ = [
    "Answer",
    "Conversation",
    "Encoding",
    "LocalCluster",
    "PumaError",
    "Receipt",
    "RemoteCluster",
    "__version__",
    "connect",
    "receipt",
]

_ROOMS = {
    "Answer": "client.client",
    "Conversation": "client.chat.conversation",
    "Encoding": "client.client",
    "LocalCluster": "local.cluster",
    "PumaError": "errors",
    "RemoteCluster": "client.connect",
    "connect": "client.connect",
    "Receipt": "client.evidence.receipt",
}
_MODULES = {"receipt": "client.evidence.verify"}


def __getattr__(name: str) -> Any:
    """Import lazily: the command line must answer before torch is loaded."""
    from importlib import import_module

    if name in _ROOMS:
        return getattr(import_module(f"puma.{_ROOMS[name]}"), name)
    if name in _MODULES:
        return import_module(f"puma.{_MODULES[name]}")
    raise AttributeError(f"module 'puma' has no attribute {name!r}")
