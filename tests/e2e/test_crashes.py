"""What is killed comes back, and what was promised is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from modelyard import Client, RemoteError
from modelyard.client.training import State
from support.diabetes import ROW, short_training
from support.local_cluster import UpCluster
from support.waiting import eventually_sync

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[UpCluster]:
    """A cluster of its own, whose leases run out soon."""
    cluster = UpCluster.at(tmp_path, MODELYARD_GATEWAY_LEASE_S="3", MODELYARD_GATEWAY_REPORT_INTERVAL_S="0.5",
                           MODELYARD_GATEWAY_REAP_INTERVAL_S="0.5")  # fmt: skip
    cluster.start()
    yield cluster
    if cluster.process is not None:
        cluster.stop()


def programs(cluster: UpCluster) -> list[psutil.Process]:
    assert cluster.process is not None
    return psutil.Process(cluster.process.pid).children(recursive=True)


def running(cluster: UpCluster, part: str) -> list[psutil.Process]:
    def matches(process: psutil.Process) -> bool:
        try:
            return part in " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            return False

    return [process for process in programs(cluster) if matches(process)]


def kill(cluster: UpCluster, part: str) -> None:
    victims = running(cluster, part)
    assert victims, f"no process of {part}"
    for victim in victims:
        victim.kill()


def answers(client: Client, model: str) -> bool:
    try:
        return client.predict(model, {"input": ROW}).version == "1"
    except RemoteError as error:
        if error.reason not in ("NOT_FOUND", "UNAVAILABLE"):
            raise
        return False


def test_a_killed_worker_costs_an_attempt_and_publishes_once(fragile: UpCluster, diabetes_csv: Path) -> None:
    with fragile.client() as client:
        client.datasets.upload(diabetes_csv)
        spec = short_training(model="killed", epochs=800)
        spec.early_stopping.patience = 100_000
        name = client.training.submit(spec).name
        eventually_sync(lambda: client.training.get(name).state == State.STATE_RUNNING, timeout=60)
        trainers = running(fragile, "modelyard_workers.trainer")
        kill(fragile, "modelyard_workers")
        job = client.training.wait(name)
        assert job.state == State.STATE_SUCCEEDED, job.failure_message
        assert job.attempt == 2
        events = list(client.training.watch(name))
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert [version.version for version in client.models.versions("killed")] == [1]
    assert trainers
    assert not [trainer for trainer in trainers if trainer.is_running()]
    # Those of the killed worker are gone with it; the new worker keeps one that waits for the next job.
    eventually_sync(lambda: len(running(fragile, "modelyard_workers.trainer")) <= 1)


def test_killed_services_come_back_with_everything(fragile: UpCluster, diabetes_csv: Path) -> None:
    with fragile.client() as client:
        client.datasets.upload(diabetes_csv)
        name = client.training.submit(short_training(model="kept")).name
        assert client.training.wait(name).state == State.STATE_SUCCEEDED
        eventually_sync(lambda: answers(client, "kept"))
        for program in ("modelyard.gateway", "modelyard.registry", "modelyard.inference", "modelyard.door"):
            kill(fragile, program)
            eventually_sync(lambda: fragile.run("status", "--json").returncode == 0, timeout=60, interval=0.5)
            eventually_sync(lambda: answers(client, "kept"), timeout=60)
        assert client.training.get(name).model_version == "models/kept/versions/1"


def test_jobs_survive_a_lost_broker(fragile: UpCluster, diabetes_csv: Path) -> None:
    with fragile.client() as client:
        client.datasets.upload(diabetes_csv)
        kill(fragile, "redis.sock")
        jobs = [client.training.submit(short_training(model=f"broker-{i}", epochs=2)).name for i in range(3)]
        assert {client.training.wait(name).state for name in jobs} == {State.STATE_SUCCEEDED}


def test_a_second_up_resumes_everything_and_may_be_open(fragile: UpCluster, diabetes_csv: Path) -> None:
    with fragile.client() as client:
        client.datasets.upload(diabetes_csv)
        name = client.training.submit(short_training(model="resumed")).name
        assert client.training.wait(name).state == State.STATE_SUCCEEDED
        eventually_sync(lambda: answers(client, "resumed"))
    before = programs(fragile)
    assert fragile.stop() == 0
    assert not [process for process in before if process.is_running()]
    fragile.options = ("--open",)
    fragile.start()
    with fragile.client() as client:
        assert client.training.get(name).model_version == "models/resumed/versions/1"
        eventually_sync(lambda: answers(client, "resumed"))
    with fragile.client(token="") as anybody:
        assert answers(anybody, "resumed")
        with pytest.raises(RemoteError) as raised:
            anybody.models.get("resumed")
    assert raised.value.reason == "TOKEN_MISSING"


def test_a_killed_up_leaves_nothing_running_and_the_next_one_resumes(fragile: UpCluster, diabetes_csv: Path) -> None:
    with fragile.client() as client:
        client.datasets.upload(diabetes_csv)
        spec = short_training(model="orphan", epochs=800)
        spec.early_stopping.patience = 100_000
        name = client.training.submit(spec).name
        eventually_sync(lambda: client.training.get(name).state == State.STATE_RUNNING, timeout=60)
    before = programs(fragile)
    fragile.kill()
    eventually_sync(lambda: not [process for process in before if process.is_running()])
    fragile.start()
    with fragile.client() as client:
        assert client.training.wait(name).state == State.STATE_SUCCEEDED


def test_a_second_up_on_the_same_data_is_refused(fragile: UpCluster) -> None:
    refused = fragile.run("up", "--data-dir", fragile.data_dir, "--port", "0")
    assert refused.returncode != 0
    assert str(fragile.port) in refused.stderr


def test_down_stops_it(fragile: UpCluster) -> None:
    assert fragile.process is not None
    assert fragile.run("down", "--data-dir", fragile.data_dir).returncode == 0
    assert fragile.process.wait(timeout=5) == 0
    fragile.process = None
