"""`modelyard models publish` and `client.models.publish` against a registry: an ONNX file from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from onnx import helper

from modelyard.client import Client, RemoteError
from modelyard.core.channels import fixed_token, sync_channel
from modelyard.core.errors import InvalidFields
from modelyard.v1 import artifact_service_pb2 as artifact_pb
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from support import external_graphs, graphs
from support.command import Command
from support.identity import Identity
from support.onnx_graphs import onnx_bytes
from support.registry_program import RegistryProgram


@dataclass
class Publisher:
    """Somebody with a graph in a file, beside an empty registry."""

    command: Command
    client: Client
    artifacts: ArtifactServiceStub
    folder: Path

    def file(self, content: bytes, name: str = "model.onnx") -> str:
        """The path of a file with this content."""
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def publish(self, *arguments: str) -> Result:
        """`modelyard models publish …`."""
        return self.command.run("models", "publish", *arguments)

    def aliases(self, model: str = "m") -> dict[str, int]:
        """Where the model's aliases point."""
        return dict(self.client.models.get(model).aliases)

    def versions(self, model: str = "m") -> list[int]:
        """The model's versions, oldest first."""
        return sorted(version.version for version in self.client.models.versions(model))

    def announce(self, content: bytes) -> artifact_pb.Upload:
        """Announces the content: how far is it?"""
        digest = hashlib.sha256(content).hexdigest()
        return self.artifacts.StartUpload(artifact_pb.StartUploadRequest(digest=digest, size_bytes=len(content)))

    def has(self, model: str) -> bool:
        """Whether there is such a model."""
        return model in {found.name.removeprefix("models/") for found in self.client.models.list()}


@pytest.fixture
def publisher(identity: Identity, tmp_path: Path) -> Iterator[Publisher]:
    # A process of its own: the command's output must not be mixed with the registry's log.
    with RegistryProgram(tmp_path, identity) as program:
        token = identity.token("developer")
        environment = {"MODELYARD_ADDRESS": program.address, "MODELYARD_TOKEN": token, "COLUMNS": "200"}
        with Client(program.address, token) as client, sync_channel(program.address, fixed_token(token)) as channel:
            yield Publisher(Command(environment), client, ArtifactServiceStub(channel), tmp_path)


def test_a_file_becomes_a_live_version_of_a_new_model(publisher: Publisher) -> None:
    content = onnx_bytes(2.0)
    result = publisher.publish("m", publisher.file(content))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "models/m/versions/1\n"
    assert hashlib.sha256(content).hexdigest() in result.stderr
    assert "live → 1" in result.stderr
    assert publisher.aliases() == {"live": 1}


def test_programs_get_the_version_as_json(publisher: Publisher) -> None:
    file = publisher.file(onnx_bytes(2.0))
    result = publisher.publish("models/m", file, "--alias", "none", "--label", "from=elsewhere", "--json")
    told = json.loads(result.stdout)
    assert (told["name"], told["version"], told["labels"]) == ("models/m/versions/1", "1", {"from": "elsewhere"})
    assert publisher.aliases() == {}


def test_an_alias_of_another_name_is_made_and_the_others_stay(publisher: Publisher) -> None:
    publisher.publish("m", publisher.file(onnx_bytes(2.0)))
    publisher.publish("m", publisher.file(onnx_bytes(3.0)), "--alias", "candidate")
    assert publisher.aliases() == {"live": 1, "candidate": 2}


def test_repeating_the_command_makes_no_second_version_and_moves_nothing_back(publisher: Publisher) -> None:
    first, second = publisher.file(onnx_bytes(2.0), "first.onnx"), publisher.file(onnx_bytes(3.0), "second.onnx")
    for _ in range(2):
        assert publisher.publish("m", first).stdout == "models/m/versions/1\n"
    assert publisher.publish("m", second).stdout == "models/m/versions/2\n"
    again = publisher.publish("m", first)
    assert again.stdout == "models/m/versions/1\n"
    assert "live points to version 2 by now: modelyard models promote m 1 --alias live" in again.stderr
    assert (publisher.versions(), publisher.aliases()) == ([1, 2], {"live": 2})


def test_a_request_id_of_ones_own_decides_what_is_the_same(publisher: Publisher) -> None:
    file = publisher.file(onnx_bytes(2.0))
    for request_id in ("monday", "monday", "tuesday"):
        publisher.publish("m", file, "--request-id", request_id)
    assert publisher.versions() == [1, 2]
    other = publisher.publish("m", publisher.file(onnx_bytes(3.0)), "--request-id", "monday")
    assert (other.exit_code, "monday belongs to a request with other content" in other.stderr) == (6, True)


def test_weights_in_a_file_of_their_own_come_along(publisher: Publisher) -> None:
    graph, weights = external_graphs.external()
    model, data = publisher.file(graph), publisher.file(weights, external_graphs.LOCATION)
    alone = publisher.publish("m", model)
    assert alone.exit_code == 2
    assert f"is in another file, '{external_graphs.LOCATION}'" in alone.stderr
    result = publisher.publish("m", model, "--external-data", data)
    assert result.exit_code == 0, result.stderr
    assert publisher.client.models.version("m", 1).external_data.digest == hashlib.sha256(weights).hexdigest()


def test_a_refused_graph_is_one_line_that_names_the_file(publisher: Publisher) -> None:
    contents = {
        "truncated": onnx_bytes(2.0)[:-20],
        "text": b"no graph at all",
        "empty": b"",
        "unknown-operator": onnx_bytes(2.0, nodes=[helper.make_node("Conjure", ["x", "w"], ["y"])]),
        "foreign-domain": onnx_bytes(2.0, nodes=[helper.make_node("Add", ["x", "w"], ["y"], domain="evil")]),
    }
    for name, content in contents.items():
        file = publisher.file(content, f"{name}.onnx")
        result = publisher.publish("m", file)
        assert (result.exit_code, result.stdout) == (2, ""), name
        assert re.fullmatch(rf"error: {re.escape(file)}: .+\n", result.stderr), result.stderr
    assert not publisher.has("m")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["models/a/b", "FILE"], "error: model: expected models/{model}, got 'models/a/b'"),
        (["Big", "FILE"], "error: model: expected models/{model}, got 'models/Big'"),
        (["m", "FILE", "--alias", "Live!"], "error: alias: expected an id"),
        (["m", "FILE", "--request-id", "a b"], "error: request_id: expected at most 64"),
        (["m", "FILE", "--label", "alone"], "error: --label: expected NAME=VALUE, got 'alone'"),
        (["m", "FILE", "--external-data", "SPACED"], "error: external_data: expected at most 100"),
    ],
)
def test_wrong_arguments_are_told_before_anything_goes_up(
    publisher: Publisher, arguments: list[str], told: str
) -> None:
    content = graphs.scale(2, 512)
    paths = {"FILE": publisher.file(content), "SPACED": publisher.file(b"data", "the weights")}
    result = publisher.publish(*(paths.get(argument, argument) for argument in arguments))
    assert (result.exit_code, result.stderr.startswith(told)) == (2, True), result.stderr
    assert result.stderr.count("\n") == 1
    upload = publisher.announce(content)
    assert (upload.complete, upload.committed_bytes) == (False, 0)


def test_somebody_who_may_only_read_publishes_nothing(publisher: Publisher, identity: Identity) -> None:
    publisher.command.environment["MODELYARD_TOKEN"] = identity.token("viewer")
    assert publisher.publish("m", publisher.file(onnx_bytes(2.0))).exit_code == 4


def test_an_upload_that_broke_goes_on_where_it_broke(publisher: Publisher) -> None:
    graph, weights = external_graphs.external(size=400_000)
    path, data = publisher.file(graph), publisher.file(weights, external_graphs.LOCATION)
    half = len(weights) // 2
    upload = publisher.announce(weights)
    publisher.artifacts.WriteUpload(iter([artifact_pb.WriteUploadRequest(name=upload.name, data=weights[:half])]))
    told: list[tuple[int, int]] = []
    version = publisher.client.models.publish(
        "m", path, external_data=data, on_progress=lambda done, total: told.append((done, total))
    )
    total = len(graph) + len(weights)
    assert version.external_data.size_bytes == len(weights)
    assert {of for _done, of in told} == {total}
    assert (len(graph) + half, total) in told
    assert told[-1] == (total, total)


def test_the_client_says_what_is_wrong_by_errors(publisher: Publisher) -> None:
    with pytest.raises(InvalidFields):
        publisher.client.models.publish("models/m", publisher.file(onnx_bytes(2.0)))
    with pytest.raises(RemoteError) as raised:
        publisher.client.models.publish("m", publisher.file(b"no graph"))
    assert (raised.value.reason, raised.value.metadata["field"]) == ("MALFORMED_CONTENT", "model_version.digest")
    with pytest.raises(OSError, match=r"missing\.onnx"):
        publisher.client.models.publish("m", publisher.folder / "missing.onnx")
