"""One pod with the reference models for the whole folder, and a proxy in front of it that can be spoiled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.conformance_pod import ConformancePod, conformance_pod
from support.faulty_proxy import FaultyProxy, faulty_proxy


@pytest.fixture(scope="session")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConformancePod]:
    with conformance_pod(tmp_path_factory.mktemp("conformance")) as pod:
        yield pod


@pytest.fixture(scope="session")
def proxy(pod: ConformancePod) -> Iterator[FaultyProxy]:
    with faulty_proxy(pod.address) as proxy:
        yield proxy
