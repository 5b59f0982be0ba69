"""The programs of a local cluster: their order, their settings, and that the settings are real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from modelyard.door.settings import DoorSettings
from modelyard.gateway.settings import GatewaySettings
from modelyard.inference.settings import InferenceSettings
from modelyard.local.keys import ensure_identity
from modelyard.local.programs import WITH_METRICS, Layout, Program, local_programs
from modelyard.registry.settings import RegistrySettings
from modelyard_workers.settings import WorkerSettings

SETTINGS: dict[str, type[BaseSettings]] = {
    "door": DoorSettings,
    "gateway": GatewaySettings,
    "inference": InferenceSettings,
    "registry": RegistrySettings,
    "worker": WorkerSettings,
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "run").mkdir()
    metrics = {name: f"127.0.0.1:{9000 + number}" for number, name in enumerate(WITH_METRICS)}
    identity = ensure_identity(tmp_path / "data/identity")
    return Layout(tmp_path / "data", tmp_path / "run", identity, "127.0.0.1:8500", metrics)


def program(layout: Layout, name: str, **options: bool) -> Program:
    return next(each for each in local_programs(layout, **options) if each.name == name)


def test_the_broker_starts_first_and_the_door_stops_first(layout: Layout) -> None:
    names = [each.name for each in local_programs(layout)]
    assert names[0] == "redis"
    assert names[-1] == "door"
    assert set(names) == {"redis", *SETTINGS}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_variable_is_a_setting_that_its_program_accepts(
    layout: Layout, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS[name]
    prefix = settings.model_config["env_prefix"]
    given = program(layout, name).environment
    unknown = [key for key in given if key.removeprefix(prefix).lower() not in settings.model_fields]
    assert unknown == []
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings()


def test_all_that_lasts_is_below_the_data_directory(layout: Layout) -> None:
    given = {key: value for each in local_programs(layout) for key, value in each.environment.items()}
    for key in ("MODELYARD_GATEWAY_DATABASE_URL", "MODELYARD_REGISTRY_DATABASE_URL", "MODELYARD_REGISTRY_BLOB_URL"):
        assert str(layout.data_dir) in given[key]
    for key in ("MODELYARD_INFERENCE_CACHE_DIR", "MODELYARD_WORKER_WORK_DIR"):
        assert Path(given[key]).is_relative_to(layout.data_dir)


def test_only_the_gateway_can_sign(layout: Layout) -> None:
    signing_key = str(layout.identity.signing_key_file)
    assert [each.name for each in local_programs(layout) if signing_key in each.environment.values()] == ["gateway"]


@pytest.mark.parametrize(("open_predict", "said"), [(False, "false"), (True, "true")])
def test_predictions_without_a_token_are_off_unless_asked_for(layout: Layout, open_predict: bool, said: str) -> None:
    environment = program(layout, "inference", open_predict=open_predict).environment
    assert environment["MODELYARD_INFERENCE_ANONYMOUS_PREDICT"] == said


def test_the_ready_file_of_a_killed_worker_counts_for_nothing(layout: Layout) -> None:
    worker = program(layout, "worker")
    ready = Path(worker.environment["MODELYARD_WORKER_READY_FILE"])
    assert worker.probe()
    ready.write_text("4194305\n")  # above the kernel's largest process id
    assert worker.probe()


def test_every_service_but_the_door_and_the_worker_serves_its_metrics_at_its_own_address(layout: Layout) -> None:
    given = {key: value for each in local_programs(layout) for key, value in each.environment.items()}
    addresses = {key.split("_")[1].lower(): value for key, value in given.items() if key.endswith("_METRICS_LISTEN")}
    assert addresses == dict(layout.metrics)
    assert len(set(addresses.values())) == len(WITH_METRICS)


def test_without_addresses_nothing_is_served(layout: Layout) -> None:
    quiet = program(replace(layout, metrics={}), "gateway")
    assert quiet.environment["MODELYARD_GATEWAY_METRICS_LISTEN"] == ""
