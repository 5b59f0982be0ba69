"""One cluster for most tests; those that break it start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard import Client
from support.diabetes import write_diabetes
from support.local_cluster import UpCluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpCluster]:
    """A running cluster, whose pod takes tensors in shared memory."""
    cluster = UpCluster.at(tmp_path_factory.mktemp("cluster"), MODELYARD_INFERENCE_SYSTEM_SHARED_MEMORY="true")
    cluster.start()
    yield cluster
    assert cluster.stop() == 0


@pytest.fixture
def client(cluster: UpCluster) -> Iterator[Client]:
    """The administrator's client."""
    with cluster.client() as client:
        yield client


@pytest.fixture(scope="session")
def diabetes_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The diabetes data in its own units."""
    return write_diabetes(tmp_path_factory.mktemp("data") / "diabetes.csv")
