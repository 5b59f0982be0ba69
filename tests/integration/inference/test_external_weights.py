"""Versions whose weights are in a file of their own: fetched, verified, put where the graph finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.v1 import model_pb2
from support.external_graphs import LOCATION, external
from support.identity import Identity
from support.inference_pod import Pod, output, row, running_pod
from support.served_registry import ServedRegistry


def add(registry: ServedRegistry, factor: float) -> tuple[str, str]:
    """A new version; answers the digests of graph and weights. The graph's is the same for every factor."""
    graph, weights = external(factor)
    digest = registry.store.put(weights)
    data = model_pb2.ExternalData(digest=digest, size_bytes=len(weights), location=LOCATION)
    registry.add("m", graph, external_data=data)
    return registry.store.put(graph), digest


@pytest.mark.parametrize("settings", [{}, {"mapped_weights_from_bytes": 1}, {"trial_loads": True}], ids=str)
async def test_a_version_computes_with_its_weights_and_is_swapped(
    settings: dict[str, int], registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    add(registry, 2)
    async with running_pod(registry_address, identity, tmp_path / "pod", **settings) as pod:  # type: ignore[arg-type]
        await pod.until_ready("m")
        assert output(await pod.predict("m", row(1, 2, 3, 4))) == [[2, 4, 6, 8]]
        add(registry, 5)
        await pod.until_ready("m", "2")
        assert output(await pod.predict("m", row(1, 2, 3, 4))) == [[5, 10, 15, 20]]
    assert not list((tmp_path / "pod" / "cache" / "pairs").iterdir()), "links go with the version"


async def test_weights_that_changed_on_disk_are_fetched_again(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    _, digest = add(registry, 2)
    async with running_pod(registry_address, identity, tmp_path / "pod") as pod:
        await pod.until_ready("m")
    (tmp_path / "pod" / "cache" / "blobs" / digest / "model.onnx").write_bytes(external(666)[1])
    async with running_pod(registry_address, identity, tmp_path / "pod") as pod:
        await pod.until_ready("m")
        assert output(await pod.predict("m", row(1, 2, 3, 4))) == [[2, 4, 6, 8]]


async def test_weights_that_are_not_there_are_the_reason_given(registry: ServedRegistry, pod: Pod) -> None:
    data = model_pb2.ExternalData(digest="ab" * 32, size_bytes=16, location=LOCATION)
    registry.add("m", external()[0], external_data=data)
    assert "the registry does not give the artifact" in await pod.until_state("m", 1, "UNAVAILABLE")


async def test_a_graph_that_points_to_another_file_is_refused(registry: ServedRegistry, pod: Pod) -> None:
    weights = external()[1]
    data = model_pb2.ExternalData(digest=registry.store.put(weights), size_bytes=16, location=LOCATION)
    registry.add("m", external(location="../../desired.binpb")[0], external_data=data)
    reason = await pod.until_state("m", 1, "UNAVAILABLE")
    assert reason.startswith("the graph points to the file '../../desired.binpb'; expected weights.bin")
