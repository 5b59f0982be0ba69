"""A yard that the tests of a module share, for those that break nothing."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from support.door import Yard, open_yard

PAGE_ORIGIN = "https://console.example.com"


@pytest.fixture(scope="module", params=["direct", "envoy"])
def yard(request: pytest.FixtureRequest) -> Iterator[Yard]:
    """Two pods, a gateway, a registry and a door that waits little, so that its giving up can be seen; on each lane."""
    most = str(8 * 1024 * 1024)
    with open_yard(LANE=request.param, PATIENCE_S="0.5", CORS_ORIGINS=PAGE_ORIGIN, MAX_MESSAGE_BYTES=most) as yard:
        yield yard


@pytest.fixture
def channel(yard: Yard) -> Iterator[grpc.Channel]:
    """A channel to the shared door."""
    with yard.door.channel() as channel:
        yield channel
