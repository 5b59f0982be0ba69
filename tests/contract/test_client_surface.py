"""What people build on: the Python client's methods and the command's words. A change here is a change for them."""

from __future__ import annotations

import inspect

from typer.main import get_command

import modelyard.client
from modelyard.cli.main import app
from modelyard.cli.output import Exit
from modelyard.client.access import AccessClient
from modelyard.client.training import TrainingClient
from support.documentation import ROOT


def methods_of(client: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(client, inspect.isfunction) if not name.startswith("_")}


def parameters_of(method: object) -> list[str]:
    return list(inspect.signature(method).parameters)[1:]  # type: ignore[arg-type]


def test_the_client_exports() -> None:
    assert modelyard.client.__all__ == ["Client", "FieldViolation", "Prediction", "RemoteError"]


def test_the_methods_for_training_jobs() -> None:
    assert methods_of(TrainingClient) == {
        "attempts", "cancel", "explain", "get", "list", "logs", "pause", "preempt", "progress", "queues", "resume",
        "submit", "wait", "watch", "workers",
    }  # fmt: skip


def test_the_methods_for_tokens_and_tenants() -> None:
    assert methods_of(AccessClient) == {"caller", "create_token", "set_tenant", "tenant", "tenants"}


def test_what_a_submission_and_a_watch_can_say() -> None:
    assert parameters_of(TrainingClient.submit) == [
        "spec", "display_name", "labels", "queue", "priority", "max_queue_s", "max_run_s", "max_retries", "request_id",
        "validate_only",
    ]  # fmt: skip
    assert parameters_of(TrainingClient.watch) == [
        "name", "after_sequence", "history_only", "until_paused", "patience_s", "on_contact",
    ]  # fmt: skip


def test_every_public_method_says_what_it_does() -> None:
    for client in (TrainingClient, AccessClient):
        undocumented = {name for name in methods_of(client) if not inspect.getdoc(getattr(client, name))}
        assert undocumented == set()


def test_the_words_of_the_command() -> None:
    command = get_command(app)
    words = {
        f"{group} {name}"
        for group in ("train", "queues", "workers", "tenants", "token")
        for name in command.commands[group].commands  # type: ignore[attr-defined]
    }
    assert words == {
        "train submit", "train watch", "train logs", "train show", "train cancel", "train pause", "train resume",
        "train preempt", "train list", "train explain", "train attempts", "train progress", "queues list",
        "workers list", "tenants list", "tenants show", "tenants set", "token create",
    }  # fmt: skip


def test_the_page_about_following_jobs_names_every_command() -> None:
    page = (ROOT / "docs/following-jobs.md").read_text(encoding="utf-8")
    words = get_command(app).commands["train"].commands  # type: ignore[attr-defined]
    assert [word for word in words if f"modelyard train {word}" not in page] == []


def test_exit_codes_do_not_change() -> None:
    assert {code.name: code.value for code in Exit} == {
        "OK": 0, "FAILED": 1, "USAGE": 2, "NOT_FOUND": 3, "DENIED": 4, "UNAVAILABLE": 5, "CONFLICT": 6, "CANCELLED": 7,
        "PAUSED": 8, "INTERRUPTED": 130,
    }  # fmt: skip
