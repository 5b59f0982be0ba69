"""Submit, train, publish, serve, swap: through the door, with foreign clients, on a cluster as a user has it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from modelyard import Client, RemoteError
from modelyard.client.training import State
from support.diabetes import ROW, short_training
from support.local_cluster import UpCluster
from support.waiting import eventually_sync

DEMO = Path(__file__).parents[2] / "demo"
sys.path.insert(0, str(DEMO))
from foreign_client import TritonClient  # noqa: E402 - the demo's own wrapper around the stock client

pytestmark = pytest.mark.slow


def served_version(client: Client, model: str) -> str:
    try:
        return client.predict(model, {"input": ROW}).version
    except RemoteError as error:
        if error.reason not in ("NOT_FOUND", "UNAVAILABLE"):
            raise
        return ""


def test_a_trained_model_is_served_with_its_origin(cluster: UpCluster, client: Client, diabetes_csv: Path) -> None:
    dataset = client.datasets.upload(diabetes_csv)
    job = client.training.wait(client.training.submit(short_training(model="origin")).name)
    assert job.state == State.STATE_SUCCEEDED, job.failure_message
    assert job.model_version == "models/origin/versions/1"

    eventually_sync(lambda: served_version(client, "origin") == "1")
    answer = TritonClient(cluster.address, cluster.token).predict("origin", ROW, output="prediction")
    version = client.models.version("origin", "live")
    assert answer.version == "1"
    assert answer.parameters["digest"] == version.digest
    assert answer.parameters["training_job"] == job.name
    assert answer.parameters["dataset_digest"] == dataset.digest == version.dataset_digest
    assert answer.values[0][0] == pytest.approx(client.predict("origin", {"input": ROW}).output[0, 0], rel=1e-5)


def test_the_history_of_a_job_is_complete_and_can_be_read_again(client: Client, diabetes_csv: Path) -> None:
    client.datasets.upload(diabetes_csv)
    name = client.training.submit(short_training(model="history")).name
    live = list(client.training.watch(name))
    again = list(client.training.watch(name))
    assert [event.sequence for event in live] == list(range(1, len(live) + 1))
    assert again == live
    assert list(client.training.watch(name, after_sequence=len(live) - 1)) == live[-1:]
    states = [State.Name(event.state_change.state) for event in live if event.HasField("state_change")]
    assert states == [f"STATE_{name}" for name in (
        "QUEUED", "LEASED", "PREPARING", "RUNNING", "EVALUATING", "EXPORTING", "PUBLISHING", "SUCCEEDED",
    )]  # fmt: skip


def test_a_swap_under_load_fails_no_request(cluster: UpCluster, client: Client, diabetes_csv: Path) -> None:
    client.datasets.upload(diabetes_csv)
    client.training.wait(client.training.submit(short_training(model="swap")).name)
    eventually_sync(lambda: served_version(client, "swap") == "1")
    load = TritonClient(cluster.address, cluster.token).keep_asking("swap", ROW[0])
    try:
        client.training.wait(client.training.submit(short_training(model="swap", seed=2)).name)
        eventually_sync(lambda: served_version(client, "swap") == "2")
        client.models.rollback("swap", reason="to see it go back")
        eventually_sync(lambda: served_version(client, "swap") == "1")
        report = load.stop()
    finally:
        load.kill()
    assert report.failed == 0, report.errors
    assert set(report.first_answer) == {"1", "2"}
    assert report.requests >= 1000
    assert [change.version for change in client.models.history("swap")] == [1, 2, 1]


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_soon(client: Client, diabetes_csv: Path) -> None:
    client.datasets.upload(diabetes_csv)
    long = short_training(model="cancel", epochs=1_000_000)
    long.early_stopping.patience = 1_000_000
    running = client.training.submit(long).name
    queued = client.training.submit(long).name
    eventually_sync(lambda: client.training.get(running).state == State.STATE_RUNNING, timeout=60)
    assert client.training.cancel(queued).state == State.STATE_CANCELLED
    assert client.training.cancel(running).state == State.STATE_CANCELLING
    assert client.training.wait(running).state == State.STATE_CANCELLED
    with pytest.raises(RemoteError) as raised:
        client.training.cancel(running)
    assert raised.value.reason == "WRONG_STATE"
    with pytest.raises(RemoteError):
        client.models.get("cancel")


def test_the_command_does_the_whole_loop(cluster: UpCluster, diabetes_csv: Path, tmp_path: Path) -> None:
    assert cluster.json("datasets", "upload", diabetes_csv)["row_count"] == "442"
    recipe = tmp_path / "my.yaml"
    text = (Path(__file__).parents[2] / "services/modelyard/training/recipes/diabetes.yaml").read_text()
    recipe.write_text(text.replace("max_epochs: 1000", "max_epochs: 3").replace("models/diabetes", "models/command"))
    assert "good" in cluster.run("train", "submit", recipe, "--check").stdout
    watched = cluster.run("train", "submit", recipe, "--watch")
    assert watched.returncode == 0, watched.stderr
    assert "succeeded" in watched.stderr
    (job, *_) = cluster.json("train", "list", "--limit", "1")
    assert job["model_version"] == "models/command/versions/1"
    eventually_sync(lambda: cluster.run("predict", "command", "--data", json.dumps(ROW.tolist())).returncode == 0)
    assert cluster.json("predict", "command", "--data", json.dumps(ROW.tolist()))["version"] == "1"
    assert cluster.json("models", "promote", "command", "1", "--alias", "canary")["model_alias"]["version"] == "1"
    assert cluster.json("models", "show", "command")["model"]["aliases"] == {"live": "1", "canary": "1"}
    assert "canary" in cluster.run("models", "history", "command").stdout
    assert cluster.run("models", "show", "absent").returncode == 3
    assert cluster.run("predict", "command", "--data", "[[1, 2]]").returncode == 2


def test_a_token_made_by_the_command_opens_just_what_its_role_allows(cluster: UpCluster) -> None:
    secret = cluster.run("token", "create", "ann", "--role", "predictor", "--lifetime", "1h").stdout.strip()
    with cluster.client(secret) as client:
        assert client.access.caller().subject == "ann"
        with pytest.raises(RemoteError) as raised:
            next(iter(client.models.list()))
    assert raised.value.reason == "PERMISSION_DENIED"
