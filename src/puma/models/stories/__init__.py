"""The model that travels with the package: where its files lie, and what users may call it. It must not know what a
checkpoint is.
"""

from __future__ import annotations

from pathlib import Path

NAME = "stories"
FOLDER = Path(__file__).parent
