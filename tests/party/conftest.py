"""What tests of several machines share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.party.namespaces import made


@pytest.fixture
def namespaces() -> Iterator[None]:
    """Machines for the length of a test; a skip where the system permits none."""
    yield from made()
