"""The registry goes, comes back, forgets; pods go on serving and catch up."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from modelyard.core import serving
from modelyard.core.errors import RemoteError
from modelyard.core.settings import ServiceSettings
from modelyard.oip import open_inference_pb2 as pb
from support import graphs
from support.grpc_server import serve
from support.identity import Identity
from support.inference_pod import output, row, running_pod
from support.served_registry import ServedRegistry
from support.waiting import eventually

Code = grpc.StatusCode


async def test_a_pod_goes_on_serving_and_catches_up(
    registry: ServedRegistry, identity: Identity, tmp_path: Path
) -> None:
    socket = f"unix:{tmp_path}/registry.sock"
    settings = ServiceSettings(token_keys_file=identity.keys_file, listen=socket, drain_delay_s=0, shutdown_grace_s=0)
    first = await serving.start(registry.service(), settings)
    registry.add("scale", graphs.scale(1))
    async with running_pod(socket, identity, tmp_path / "pod") as pod:
        await pod.until_ready("scale")
        await first.stop()
        assert output(await pod.predict("scale", row(1, 2))) == [[1, 2]]
        assert (await pod.stub.ServerReady(pb.ServerReadyRequest())).ready
        registry.add("scale", graphs.scale(2))
        second = await serving.start(registry.service(), settings)
        await pod.until_ready("scale", "2")
        assert output(await pod.predict("scale", row(1, 2))) == [[2, 4]]
        await second.stop()
    # It asked for what it had missed, not for everything again.
    assert [watch.after_revision for watch in registry.watches][:2] == [0, 1]


async def test_a_pod_that_restarts_meanwhile_serves_from_its_cache(
    registry: ServedRegistry, identity: Identity, tmp_path: Path
) -> None:
    async with serve(registry.service(), identity) as address:
        registry.add("scale", graphs.scale(3))
        async with running_pod(address, identity, tmp_path / "pod") as pod:
            await pod.until_ready("scale")
    nobody = f"unix:{tmp_path}/nobody.sock"
    async with running_pod(nobody, identity, tmp_path / "pod") as pod:
        await pod.until_ready("scale")
        assert output(await pod.predict("scale", row(1, 2))) == [[3, 6]]
        # What it does not know may have come since: that is for the registry to say.
        with pytest.raises(RemoteError) as raised:
            await pod.predict("other", row(1, 2))
        assert (raised.value.code, raised.value.retry_after) == (Code.UNAVAILABLE, 1.0)


async def test_a_restarted_pod_drops_what_was_taken_out_of_service(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    registry.add("old", graphs.scale(1))
    registry.add("kept", graphs.scale(2))
    async with running_pod(registry_address, identity, tmp_path / "pod") as pod:
        await pod.until_ready("old")
        await pod.until_ready("kept")
    registry.point("old", "live", None)
    async with running_pod(registry_address, identity, tmp_path / "pod") as pod:

        async def only_the_kept_one() -> bool:
            return await pod.index() == {("kept", "1"): ("READY", "")}

        await eventually(only_the_kept_one)
        assert registry.store.read_offsets == [0, 0], "both artifacts were downloaded once, by the first pod"


async def test_a_cached_artifact_that_was_tampered_with_is_not_served(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    registry.add("scale", graphs.scale(1))
    async with running_pod(registry_address, identity, tmp_path / "pod") as pod:
        await pod.until_ready("scale")
    (cached,) = (tmp_path / "pod" / "cache" / "blobs").glob("*/model.onnx")
    cached.write_bytes(graphs.scale(666))
    async with running_pod(registry_address, identity, tmp_path / "pod") as pod:
        await pod.until_ready("scale")
        assert output(await pod.predict("scale", row(1, 2))) == [[1, 2]]


async def test_a_registry_that_falls_silent_is_asked_again(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    registry.add("scale", graphs.scale(1))
    registry.heartbeat_s = 60
    async with running_pod(registry_address, identity, tmp_path / "pod", watch_silence_s=0.2) as pod:
        await pod.until_ready("scale")

        async def asked_again() -> bool:
            return len(registry.watches) >= 3

        await eventually(asked_again)
        assert output(await pod.predict("scale", row(1, 2))) == [[1, 2]]


async def test_a_disk_that_refuses_the_copy_stops_nothing(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    (tmp_path / "pod" / "cache" / "desired.part").mkdir(parents=True)  # where the copy would be written
    registry.add("scale", graphs.scale(1))
    async with running_pod(registry_address, identity, tmp_path / "pod") as pod:
        await pod.until_ready("scale")
        registry.add("scale", graphs.scale(2))
        await pod.until_ready("scale", "2")
