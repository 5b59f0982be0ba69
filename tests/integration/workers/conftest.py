"""Fixtures for the workers' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.identity import Identity
from support.worker_surroundings import Surroundings, worker_surroundings


@pytest.fixture
def surroundings(identity: Identity) -> Iterator[Surroundings]:
    """A gateway and an artifact store."""
    with worker_surroundings(identity) as served:
        yield served
