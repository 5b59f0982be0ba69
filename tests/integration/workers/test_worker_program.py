"""The worker program with a real Redis: doorbells, signals, death and outages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from modelyard.core.doorbell import DEFAULT_QUEUE, celery_queue
from modelyard.v1.training_job_pb2 import TrainingAttempt
from modelyard.v1.training_service_pb2 import Worker
from support.processes import is_alive
from support.redis_server import RedisServer, redis_server
from support.waiting import eventually_sync
from support.worker_program import WorkerProgram, ring
from support.worker_surroundings import Surroundings


@pytest.fixture
def broker() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def worker(surroundings: Surroundings, broker: RedisServer, *acts: str, **changes: object) -> WorkerProgram:
    return WorkerProgram(surroundings.settings(*acts, broker_url=broker.url, **changes), surroundings.folder)


def ring_for(surroundings: Surroundings, broker: RedisServer, job_id: str = "job1") -> str:
    name = surroundings.submit(job_id)
    ring(broker.url, name)
    return name


def waiting_trainer(surroundings: Surroundings) -> int:
    """The process id of a trainer that has said that it waits."""
    return eventually_sync(lambda: surroundings.gateway.logged_number("waiting") or 0)


def test_a_doorbell_starts_a_training_and_a_second_one_for_the_same_job_does_nothing(
    surroundings: Surroundings, broker: RedisServer
) -> None:
    with worker(surroundings, broker, "succeed") as program:
        program.wait_until_ready()
        name = ring_for(surroundings, broker)
        ring(broker.url, name)
        eventually_sync(lambda: len(surroundings.gateway.claims) == 2)
        eventually_sync(lambda: name in surroundings.gateway.finished)
        assert program.terminate() == 0
    assert len(surroundings.gateway.finished) == 1
    assert surroundings.gateway.finished[name].HasField("succeeded")


def test_a_doorbell_that_rang_before_the_worker_started_is_heard(
    surroundings: Surroundings, broker: RedisServer
) -> None:
    name = ring_for(surroundings, broker)
    with worker(surroundings, broker, "succeed"):
        eventually_sync(lambda: name in surroundings.gateway.finished)


def test_a_busy_worker_leaves_doorbells_for_others(surroundings: Surroundings, broker: RedisServer) -> None:
    with worker(surroundings, broker, "wait") as program:
        program.wait_until_ready()
        ring_for(surroundings, broker, "first")
        waiting_trainer(surroundings)
        second = ring_for(surroundings, broker, "second")
        with redis.Redis(unix_socket_path=str(broker.socket)) as client:
            assert client.llen(celery_queue(DEFAULT_QUEUE)) == 1
        with worker(surroundings, broker, "succeed"):
            eventually_sync(lambda: second in surroundings.gateway.finished)
    assert len(surroundings.gateway.claims) == 2


def test_a_worker_takes_the_jobs_of_all_its_queues_and_of_no_other(
    surroundings: Surroundings, broker: RedisServer
) -> None:
    with worker(surroundings, broker, "succeed", queues="gpu,cpu"):
        names = [surroundings.submit(queue) for queue in ("cpu", "gpu", "tpu")]
        for name, queue in zip(reversed(names), ("tpu", "gpu", "cpu"), strict=True):
            ring(broker.url, name, queue)
        eventually_sync(lambda: len(surroundings.gateway.finished) == 2)
    assert set(surroundings.gateway.finished) == set(names[:2])


def test_one_worker_trains_as_many_jobs_at_once_as_it_is_told_to(
    surroundings: Surroundings, broker: RedisServer
) -> None:
    with worker(surroundings, broker, "wait", concurrency=2) as program:
        program.wait_until_ready()
        for job in ("first", "second"):
            ring_for(surroundings, broker, job)
        eventually_sync(lambda: len(set(surroundings.gateway.claims)) == 2)
        eventually_sync(lambda: len([line for line in surroundings.gateway.log_lines if "waiting" in line]) == 2)
        assert program.terminate() == 0


@pytest.mark.parametrize("whole_group", [False, True], ids=["main process", "process group"])
def test_sigterm_stops_the_trainer_gently_and_ends_in_good_order(
    surroundings: Surroundings, broker: RedisServer, whole_group: bool
) -> None:
    with worker(surroundings, broker, "obey_sigterm", "wait", trainer_grace_s=50) as program:
        program.wait_until_ready()
        ring_for(surroundings, broker)
        trainer = waiting_trainer(surroundings)
        assert (program.terminate_group() if whole_group else program.terminate()) == 0, program.log()
    assert not is_alive(trainer)
    assert "stopped by SIGTERM" in surroundings.gateway.log_lines
    (outcome,) = surroundings.gateway.finished.values()
    assert outcome.released.cause == TrainingAttempt.END_CAUSE_WORKER_STOPPED
    assert not program.ready_file.exists()
    assert list((surroundings.folder / "work" / "attempts").iterdir()) == []


def test_sigquit_too_lets_the_trainer_stop_first(surroundings: Surroundings, broker: RedisServer) -> None:
    with worker(surroundings, broker, "obey_sigterm", "wait", trainer_grace_s=0.5) as program:
        program.wait_until_ready()
        ring_for(surroundings, broker)
        trainer = waiting_trainer(surroundings)
        program.process.send_signal(signal.SIGQUIT)
        program.process.wait(timeout=60)
    assert not is_alive(trainer)
    assert "stopped by SIGTERM" in surroundings.gateway.log_lines


def test_a_killed_worker_takes_its_trainer_along_and_its_folder_is_swept_later(
    surroundings: Surroundings, broker: RedisServer
) -> None:
    attempts = surroundings.folder / "work" / "attempts"
    with worker(surroundings, broker, "ignore_sigterm", "wait") as program:
        program.wait_until_ready()
        ring_for(surroundings, broker)
        trainer = waiting_trainer(surroundings)
        program.kill()
    eventually_sync(lambda: not is_alive(trainer))
    assert len(list(attempts.iterdir())) == 1
    program.ready_file.unlink()
    with worker(surroundings, broker, "succeed") as successor:
        successor.wait_until_ready()
        assert list(attempts.iterdir()) == []


def test_a_killed_pool_process_takes_its_trainer_along_and_the_worker_lives_on(
    surroundings: Surroundings, broker: RedisServer
) -> None:
    with worker(surroundings, broker, "wait") as program:
        program.wait_until_ready()
        ring_for(surroundings, broker, "first")
        trainer = waiting_trainer(surroundings)
        for process in program.pool_processes():
            os.kill(process, signal.SIGKILL)
        eventually_sync(lambda: not is_alive(trainer))
        ring_for(surroundings, broker, "second")
        eventually_sync(lambda: len(surroundings.gateway.claims) == 2)


def test_redis_may_be_away_at_the_start_and_whenever_else(surroundings: Surroundings) -> None:
    gateway = surroundings.gateway
    with redis_server() as broker:
        broker.stop()
        with worker(surroundings, broker, "progress_until_told", "succeed") as program:
            assert program.check() == 1
            broker.start()
            program.wait_until_ready()
            in_training = ring_for(surroundings, broker, "first")
            eventually_sync(lambda: gateway.steps)
            broker.stop()
            (surroundings.folder / "work" / "enough").touch()
            eventually_sync(lambda: in_training in gateway.finished)
            broker.start()
            after_training = ring_for(surroundings, broker, "second")
            eventually_sync(lambda: after_training in gateway.finished)
            broker.stop()
            eventually_sync(lambda: not program.ready_file.exists())
            broker.start()
            program.wait_until_ready()
            after_idling = ring_for(surroundings, broker, "third")
            eventually_sync(lambda: after_idling in gateway.finished)
            assert program.terminate() == 0


def test_sigterm_ends_a_worker_that_waits_for_redis(surroundings: Surroundings) -> None:
    with redis_server() as broker, worker(surroundings, broker, "succeed") as program:
        program.wait_until_ready()
        broker.stop()
        eventually_sync(lambda: not program.ready_file.exists())
        assert program.terminate() == 0, program.log()


def test_messages_other_than_json_are_not_even_read(surroundings: Surroundings, broker: RedisServer) -> None:
    with worker(surroundings, broker, "succeed") as program:
        program.wait_until_ready()
        ring(broker.url, surroundings.submit("pickled"), serializer="pickle")
        ring(broker.url, "../../etc/passwd")
        good = ring_for(surroundings, broker, "good")
        eventually_sync(lambda: good in surroundings.gateway.finished)
    assert list(surroundings.gateway.finished) == [good]


def test_the_check_says_whether_a_worker_is_ready(surroundings: Surroundings, broker: RedisServer) -> None:
    with worker(surroundings, broker, "succeed") as program:
        program.wait_until_ready()
        assert program.check() == 0
        program.kill()
        assert program.ready_file.exists()
        assert program.check() == 1


def test_wrong_settings_end_the_program_with_the_variables_names_and_without_their_values(
    surroundings: Surroundings, broker: RedisServer
) -> None:
    environment = worker(surroundings, broker).environment | {
        "MODELYARD_WORKER_BROKER_URL": "amqp://user:swordfish@host",
        "MODELYARD_WORKER_CONCURRENCY": "0",
    }
    command = [sys.executable, "-m", "modelyard_workers"]
    answer = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert "MODELYARD_WORKER_BROKER_URL: " in answer.stderr
    assert "MODELYARD_WORKER_CONCURRENCY: " in answer.stderr
    assert "swordfish" not in answer.stderr


def test_each_pool_process_says_that_it_is_there_what_it_does_and_good_bye(
    surroundings: Surroundings, broker: RedisServer
) -> None:
    def said(state: Worker.State.ValueType, job: str = "") -> bool:
        return any(one.state == state and one.training_job == job for one in surroundings.gateway.presences)

    with worker(surroundings, broker, "obey_sigterm", "wait", queues="gpu,cpu", node="rack1") as program:
        eventually_sync(lambda: said(Worker.STATE_IDLE))
        name = ring_for(surroundings, broker)
        eventually_sync(lambda: said(Worker.STATE_BUSY, name))
        waiting_trainer(surroundings)
        assert program.terminate() == 0
    assert surroundings.gateway.presences[-1].state == Worker.STATE_STOPPING
    claimer = surroundings.gateway.claims[0]
    told = [one for one in surroundings.gateway.presences if one.worker == claimer]
    # With its job, unless that had been given back before the stop was told.
    assert {one.training_job for one in told if one.state == Worker.STATE_STOPPING} & {name, ""}
    assert {(one.node, tuple(one.queues), one.hardware != "") for one in told} == {("rack1", ("gpu", "cpu"), True)}
