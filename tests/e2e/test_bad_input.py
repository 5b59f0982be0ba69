"""Bad input is answered at the earliest point that can know, with the field at fault, and leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from modelyard import Client, RemoteError
from modelyard.client import blobs
from modelyard.client.connection import Connection, Endpoint, translated
from modelyard.core.names import shorten
from modelyard.training import recipes
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.model_service_pb2 import CreateModelVersionRequest
from modelyard.v1.model_service_pb2_grpc import ModelServiceStub
from modelyard.v1.training_spec_pb2 import TrainingSpec
from support.diabetes import ROW, short_training
from support.local_cluster import UpCluster
from support.waiting import eventually_sync

pytestmark = pytest.mark.slow


def refusal(action: Callable[[], object]) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        action()
    return raised.value


def violations(error: RemoteError) -> dict[str, str]:
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), str(error)
    return {violation.field: violation.description for violation in error.violations}


def without_epochs(spec: TrainingSpec) -> None:
    spec.max_epochs = 0


def without_optimizer(spec: TrainingSpec) -> None:
    spec.optimizer.ClearField("adam")


def for_nine_inputs(spec: TrainingSpec) -> None:
    spec.feature_columns[:] = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5"]


def with_a_gap_between_layers(spec: TrainingSpec) -> None:
    spec.network.layer_list.layers[2].linear.inputs = 7


def with_a_path_as_dataset(spec: TrainingSpec) -> None:
    spec.dataset = "datasets/../../etc/passwd"


def with_a_path_as_model(spec: TrainingSpec) -> None:
    spec.model = "/tmp/model"


@pytest.mark.parametrize(
    ("spoil", "field", "text"),
    [
        (without_epochs, "max_epochs", "1"),
        (without_optimizer, "optimizer", "adam"),
        (for_nine_inputs, "network", "9"),
        (with_a_gap_between_layers, "layers[2]", "7"),
        (with_a_path_as_dataset, "dataset", "datasets/{dataset}"),
        (with_a_path_as_model, "model", "models/{model}"),
    ],
)
def test_a_wrong_spec_is_refused_at_submission(
    client: Client, diabetes_csv: Path, spoil: Callable[[TrainingSpec], None], field: str, text: str
) -> None:
    client.datasets.upload(diabetes_csv)
    spec = short_training(model="refused")
    spoil(spec)
    found = violations(refusal(lambda: client.training.submit(spec)))
    assert any(field in path and text in said for path, said in found.items()), found
    assert "refused" not in {job.spec.model.rpartition("/")[2] for job in client.training.list()}


def test_an_unknown_dataset_is_named(client: Client) -> None:
    spec = short_training(model="refused")
    spec.dataset = "datasets/absent"
    error = refusal(lambda: client.training.submit(spec))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert error.metadata["field"] == "training_job.spec.dataset"
    assert "absent" in error.message


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("adam: {}", "rmsprop: {}", "rmsprop"),
        ("RELU", "SOFTSIGN", "SOFTSIGN"),
        ("max_epochs: 1000", "max_epochs: many", "max_epochs"),
        ("target_column", "target_colum", "target_colum"),
    ],
)
def test_the_command_says_where_a_file_is_wrong(
    cluster: UpCluster, tmp_path: Path, before: str, after: str, said: str
) -> None:
    text = recipes.recipe_text("diabetes")
    assert before in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(before, after))
    finished = cluster.run("train", "submit", path)
    assert finished.returncode == 2
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty|no header|no column"),
        ("a,b,target\n", "row"),
        ("a,b,target\n1,2\n", "2|3"),
        ("a,a,target\n1,2,3\n", "a"),
    ],
)
def test_a_file_that_is_no_table_becomes_no_dataset(client: Client, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "broken-table.csv"
    path.write_text(content)
    error = refusal(lambda: client.datasets.upload(path))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_CONTENT")
    assert error.metadata["field"] == "dataset.digest"
    assert re.search(said, error.message), error.message
    assert refusal(lambda: client.datasets.get("broken-table")).reason == "NOT_FOUND"


@pytest.mark.parametrize(
    ("name", "row", "text"),
    [
        ("with-text", "1.5,tall,3\n", "tall"),
        ("with-nan-target", "1.5,2,nan\n", "target"),
        ("with-no-target", "1.5,2,\n", "target"),
    ],
)
def test_values_that_cannot_be_learned_from_are_refused_at_submission(
    client: Client, tmp_path: Path, name: str, row: str, text: str
) -> None:
    path = tmp_path / f"{name}.csv"
    path.write_text("a,b,target\n" + "".join(f"{i},{i * i % 7},{i % 11}\n" for i in range(200)) + row)
    client.datasets.upload(path)
    spec = short_training(model="refused")
    spec.dataset = f"datasets/{name}"
    spec.network.input_shape[:] = [2]
    spec.network.layer_list.layers[0].linear.inputs = 2
    error = refusal(lambda: client.training.submit(spec))
    assert any(text in said or text in path for path, said in violations(error).items()), str(error)


def test_a_truncated_graph_becomes_no_version(cluster: UpCluster, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "truncated.onnx"
    path.write_bytes(b"\x08\x0a\x12\x07pytorch" + b"\x3a\xff\xff\x7f")
    connection = Connection(Endpoint(cluster.address, cluster.token))
    digest = blobs.upload_file(ArtifactServiceStub(connection.channel), path)
    request = CreateModelVersionRequest(parent="models/truncated")
    request.model_version.digest = digest

    def create() -> None:
        with translated():
            ModelServiceStub(connection.channel).CreateModelVersion(request)

    error = refusal(create)
    connection.close()
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_CONTENT")
    assert error.metadata["field"] == "model_version.digest"
    assert refusal(lambda: client.models.version("truncated", 1)).reason == "NOT_FOUND"


@pytest.fixture(scope="module")
def served(cluster: UpCluster, diabetes_csv: Path) -> str:
    """A model that answers."""
    with cluster.client() as client:
        client.datasets.upload(diabetes_csv)
        client.training.wait(client.training.submit(short_training(model="shapes")).name)

        def answered() -> bool:
            try:
                return client.predict("shapes", {"input": ROW}).version == "1"
            except RemoteError:
                return False

        eventually_sync(answered)
    return "shapes"


def test_a_wrong_tensor_shape_names_the_tensor(client: Client, served: str) -> None:
    error = refusal(lambda: client.predict(served, {"input": ROW[:, :9]}))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "input" in error.message
    assert "10" in error.message
    assert "9" in error.message


def test_a_message_over_grpcs_own_limit_reaches_the_pod(client: Client, served: str) -> None:
    six_megabytes = np.repeat(ROW, 150_000, axis=0)
    error = refusal(lambda: client.predict(served, {"input": six_megabytes}))
    assert "batch" in error.message, shorten(str(error))


def test_a_five_megabyte_submission_is_refused_with_the_limit(client: Client) -> None:
    spec = short_training(model="refused")
    spec.target_column = "x" * 5_000_000
    error = refusal(lambda: client.training.submit(spec))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
    assert int(error.metadata["limit_bytes"]) < 5_000_000


@pytest.mark.parametrize(("token", "reason"), [("", "TOKEN_MISSING"), ("nonsense", "TOKEN_INVALID")])
def test_no_token_and_a_foreign_one_are_refused_by_every_service(cluster: UpCluster, token: str, reason: str) -> None:
    with cluster.client(token) as client:
        for action in (
            lambda: list(client.training.list()),
            lambda: list(client.models.list()),
            lambda: list(client.datasets.list()),
            lambda: client.predict("origin", {"input": ROW}),
        ):
            error = refusal(action)
            assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)


def test_an_expired_token_is_told_so(cluster: UpCluster, client: Client) -> None:
    secret = client.access.create_token("brief", ["viewer"], lifetime_s=1).secret
    with cluster.client(secret) as brief:

        def reason() -> str:
            try:
                brief.access.caller()
            except RemoteError as error:
                return error.reason
            return ""

        assert eventually_sync(reason) == "TOKEN_EXPIRED"
