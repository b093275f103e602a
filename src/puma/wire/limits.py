"""The limits that both sides of a link must know. What one party serves at most is its operator's: party/limits.py."""

from __future__ import annotations

SILENCE = 600.0  # seconds that a peer may compute between two messages; a beat tells sooner that it lives
FRAME_WORDS = 1 << 20  # of a parameter's words in one data frame, at most
FRAME_BYTES = 4 << 20  # of a file in one data frame, at most
MOST_FILE_BYTES = 256 << 20  # of a file that travels with a model, such as its tokenizer
MOST_BEAMS = 32  # of a search
MOST_DRAFTS = 64  # tokens of a text that a client may guess before a step
MOST_TOP = 64  # tokens that a masked one may have been
MOST_CHOICES = 1024  # masked places times tokens for each, of a request
LEAST_NAME = 16  # bytes of what a client calls a request of its own that is kept: nobody guesses it
