"""What one party serves at most, as its operator sets it: the one place where such a limit is kept and refused.

What a request may be is engine/admission's; what both sides of a link must know is wire/limits.py. This file must not
know what is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from puma.errors import AdmissionError
from puma.party.metrics import resident


@dataclass(frozen=True)
class Limits:
    """Sessions at a time, tokens a request, bytes of its own memory (0: all there is).

    Clients see logits only if the cluster allows it (`reveal_logits`), and the model's owner too.
    """

    sessions: int
    tokens: int
    memory: int = 0
    reveal_logits: bool = False

    def check_memory(self, party: str) -> None:
        """AdmissionError while this process takes more than it may."""
        if self.memory and resident() > self.memory:
            raise AdmissionError(f"{party} is short of memory", "try again when other sessions have ended")
