"""A pod behind the registry that it will have in a cluster: published there, served here."""

from __future__ import annotations

from pathlib import Path

from modelyard.oip import open_inference_pb2 as pb
from modelyard.registry.application import open_registry
from support.grpc_server import serve
from support.identity import Identity
from support.inference_pod import output, row, running_pod
from support.registry import client, registry_settings
from support.waiting import eventually


async def test_what_the_registry_publishes_is_served_and_rolled_back(identity: Identity, tmp_path: Path) -> None:
    async with (
        open_registry(registry_settings(identity, tmp_path)) as registry,
        serve(registry.service(), identity) as address,
        client(address, registry, identity) as publisher,
        running_pod(address, identity, tmp_path / "pod") as pod,
    ):
        first = await publisher.create_version("models/linear", weight=2.0, alias="live")
        await pod.until_ready("linear")
        assert output(await pod.predict("linear", row(1, 3))) == [[3, 5]]
        config = (await pod.stub.ModelConfig(pb.ModelConfigRequest(name="linear"))).config
        assert config.parameters["digest"].string_value == first.digest

        await publisher.create_version("models/linear", weight=10.0, alias="live")
        await pod.until_ready("linear", "2")
        assert output(await pod.predict("linear", row(1, 3))) == [[11, 13]]

        await publisher.roll_back("models/linear/aliases/live")

        async def rolled_back() -> bool:
            return (await pod.predict("linear", row(1, 3))).model_version == "1"

        await eventually(rolled_back)
