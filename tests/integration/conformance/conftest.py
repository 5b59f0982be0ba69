"""A pod on each lane with the reference models, and a proxy in front of one that can be spoiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from support.conformance_pod import ConformancePod, conformance_pods
from support.faulty_proxy import FaultyProxy, faulty_proxy


@pytest.fixture(scope="session")
def pods() -> Iterator[Mapping[str, ConformancePod]]:
    with conformance_pods() as pods:
        yield pods


@pytest.fixture(scope="session")
def pod(pods: Mapping[str, ConformancePod]) -> ConformancePod:
    return pods["plain"]


@pytest.fixture(scope="session")
def proxy(pod: ConformancePod) -> Iterator[FaultyProxy]:
    with faulty_proxy(pod.address) as proxy:
        yield proxy
