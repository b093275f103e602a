"""What the gateway needs of three parties that serve a model, which clusters here and elsewhere both give."""

from __future__ import annotations

from typing import Any, Protocol


class Cluster(Protocol):
    """A session with three parties, and the public side of the model that they serve."""

    @property
    def session(self) -> Any: ...

    @property
    def model(self) -> Any: ...

    @property
    def cost(self) -> Any: ...

    def encode(self, sentence: Any) -> Any: ...

    def close(self) -> None: ...
