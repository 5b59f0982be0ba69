"""The worker's settings, and what they make of Celery."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from modelyard.core.doorbell import DEFAULT_QUEUE, TASK_NAME, celery_queue
from modelyard_workers.app import make_app
from modelyard_workers.bell import Bell
from modelyard_workers.settings import WorkerSettings
from modelyard_workers.trainer_process import trainer_environment


def settings(**changes: object) -> WorkerSettings:
    values: dict[str, object] = {
        "broker_url": "redis://host:6379/0",
        "gateway_address": "gateway:50051",
        "registry_address": "registry:50051",
        "work_dir": Path("/nowhere"),
    }
    return WorkerSettings(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://h:1/0", "redis+socket:///run/redis.sock"])
def test_redis_addresses_are_taken(url: str) -> None:
    assert settings(broker_url=url).broker_url == url


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("broker_url", "amqp://host"),
        ("broker_url", "redis+socket://relative"),
        ("queues", "two words"),
        ("queues", "gpu,"),
        ("queues", "modelyard.gpu"),
        ("concurrency", 0),
        ("out_of_contact_limit_s", 0),
        ("trainer_command", ()),
        ("gateway_address", ""),
    ],
)
def test_wrong_values_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        settings(**{field: value})


def test_the_environment_sets_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_WORKER_TRAINER_COMMAND", '["python", "-m", "mine"]')
    monkeypatch.setenv("MODELYARD_WORKER_QUEUES", "gpu,cpu")
    assert settings().trainer_command == ("python", "-m", "mine")
    assert settings().queue_names == ["gpu", "cpu"]


def test_the_application_has_the_doorbell_under_its_agreed_name_and_no_results() -> None:
    bell = Bell()
    app = make_app(settings(concurrency=2), bell)
    bell.close()
    assert TASK_NAME in app.tasks
    assert app.conf.task_default_queue == celery_queue(DEFAULT_QUEUE)
    assert app.conf.worker_concurrency == 2
    assert app.conf.task_ignore_result
    assert app.conf.accept_content == ["json"]
    assert not app.conf.task_acks_late


def test_the_trainers_environment_has_nothing_of_the_workers_own() -> None:
    worker = {
        "PATH": "/bin",
        "MODELYARD_WORKER_BROKER_URL": "redis://:secret@h",
        "REMAP_SIGTERM": "SIGQUIT",
        "HOME": "/h",
    }
    environment = trainer_environment(worker)
    assert environment["PATH"] == "/bin"
    assert not [name for name in environment if name.startswith(("MODELYARD", "REMAP"))]
