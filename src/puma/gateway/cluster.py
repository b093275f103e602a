"""What the gateway needs of three parties that serve a model, which clusters here and elsewhere both give."""

from __future__ import annotations

from typing import Any, Protocol


class Cluster(Protocol):
    """A session with three parties, and the public side of the model that they serve."""

    @property
    def session(self) -> Any:
        """Whatever answers token ids."""
        ...

    @property
    def model(self) -> Any:
        """What clients know of the model."""
        ...

    @property
    def cost(self) -> Any:
        """What the last request cost."""
        ...

    def encode(self, sentence: Any) -> Any:
        """The model's output for each text."""
        ...

    def close(self) -> None:
        """End the session."""
        ...
