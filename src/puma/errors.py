"""Every error a user of Puma can meet, drawn as a tree; ground floor, knows nothing of the rest.

    PumaError                    exit code 1
    |-- UsageError               2   an option or argument that makes no sense
    |   |-- InputError           2   the prompt or text cannot be served (empty, too long, not a token)
    |   `-- PolicyError          2   the model's owner does not allow this
    |-- CheckpointError          3   the model's files
    |   |-- UnsupportedModel     3   an architecture, activation or option that is not implemented
    |   |-- TensorError          3   a tensor is missing, misshapen, NaN or infinite
    |   `-- RangeError           3   weights so large that fixed point could overflow
    |-- ConfigError              5   the cluster file, a key or a certificate cannot be used
    |-- StoreError               6   files that a party or the client keeps: damaged, missing, no room
    |   `-- PreprocessingError        6   one-time preprocessing that is missing, used, or made for something else
    |-- AdmissionError           7   a party does not serve this: not allowed, beyond its limits, or about to stop
    |-- OutOfRange               8   a number left its range: the answer may be wrong
    `-- ProtocolError            4   the three parties no longer agree
        |-- FrameError           4   bytes on a link that are not a valid frame, or not the expected one
        |-- HandshakeError       4   version, role, session or configuration mismatch, failed authentication
        |-- ReceiptError         4   what the parties sign of a request contradicts itself, or what the client has seen
        |-- PeerLost             4   a peer closed its link or died
        `-- PeerTimeout          4   a peer stayed silent longer than the deadline

A message says in lower case what happened; the hint says what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence


class PumaError(Exception):
    """What happened, and a hint that can be acted on."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class UsageError(PumaError):
    """An option or argument that makes no sense."""

    exit_code = 2


class InputError(UsageError):
    """The prompt or text cannot be served."""


class PolicyError(UsageError):
    """The model's owner does not allow this."""


class CheckpointError(PumaError):
    """The model's files cannot be used."""

    exit_code = 3


class UnsupportedModel(CheckpointError):
    """An architecture, activation or option that is not implemented."""


class TensorError(CheckpointError):
    """A tensor is missing, misshapen, NaN or infinite."""


class RangeError(CheckpointError):
    """Weights so large that fixed-point arithmetic could overflow."""


class ConfigError(PumaError):
    """The cluster file, a key or a certificate cannot be used."""

    exit_code = 5


class StoreError(PumaError):
    """Files that a party or the client keeps are damaged, missing, open to others, or find no room."""

    exit_code = 6


class PreprocessingError(StoreError):
    """One-time preprocessing is missing, used, or was made for something else."""


class OutOfRange(PumaError):
    """A number left the reach that its format has, so that the answer may be wrong; `prompts` are those concerned."""

    exit_code = 8

    def __init__(self, message: str, hint: str = "", prompts: Sequence[int] = ()) -> None:
        super().__init__(message, hint)
        self.prompts = list(prompts)


class OutOfRangeWarning(UserWarning):
    """The same, where the answer is taken all the same."""


class RulesWarning(UserWarning):
    """A model's generation_config.json asks for what is not followed, so that answers are other than the library's."""


class AdmissionError(PumaError):
    """A party does not serve this: the key may not ask for it, it is beyond a limit, or the party is about to stop."""

    exit_code = 7


class ProtocolError(PumaError):
    """The three parties no longer agree; the session is over."""

    exit_code = 4


class FrameError(ProtocolError):
    """Bytes on a link that are not a valid frame, or not the expected one."""


class HandshakeError(ProtocolError):
    """Version, role, session or configuration mismatch, or failed authentication."""


class ReceiptError(ProtocolError):
    """What parties sign of a request contradicts itself or what the client has seen, or a signature does not hold."""


class PeerLost(ProtocolError):
    """A peer closed its link or died."""


class PeerTimeout(ProtocolError):
    """A peer stayed silent longer than the deadline."""
