"""Settings, and what their defaults are taken from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from modelyard.inference.execution.cpus import available_cpus
from modelyard.inference.settings import InferenceSettings


def test_the_environment_fills_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variables = {
        "REGISTRY_ADDRESS": "unix:/run/registry.sock", "CACHE_DIR": str(tmp_path), "TOKEN_KEYS_FILE": "keys.json",
        "ANONYMOUS_PREDICT": "true", "WARM_UP_BATCH_SIZES": "[1, 8]",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"MODELYARD_INFERENCE_{name}", value)
    settings = InferenceSettings()  # type: ignore[call-arg]  # the environment fills it
    assert (settings.anonymous_predict, settings.warm_up_batch_sizes) == (True, (1, 8))
    assert settings.max_request_bytes == 64 * 1024 * 1024
    assert (settings.runners, settings.graph_threads) == (None, None)
    assert str(os.getpid()) in settings.pod


@pytest.mark.parametrize(
    ("name", "value"), [("runners", 0), ("queue_size", -1), ("device", "tpu"), ("warm_up_batch_sizes", (0,))]
)
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: object, tmp_path: Path) -> None:
    needed = {"registry_address": "localhost:1", "cache_dir": tmp_path, "token_keys_file": tmp_path}
    with pytest.raises(ValidationError, match=name):
        InferenceSettings(**needed, **{name: value})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("lane", ["auto", "direct", "express", "plain"])
@pytest.mark.parametrize("needs", ["TLS", "access log"])
def test_what_only_envoy_can_do_is_not_asked_of_the_direct_lane(lane: str, needs: str, tmp_path: Path) -> None:
    pem = tmp_path / "any.pem"
    pem.touch()
    tls = {"tls_certificate_file": pem, "tls_key_file": pem}
    asked = {"lane": lane, **(tls if needs == "TLS" else {"access_log": True})}
    needed = {"registry_address": "localhost:1", "cache_dir": tmp_path, "token_keys_file": tmp_path}
    if lane == "direct":
        with pytest.raises(ValidationError, match=f"the direct lane has no {needs}: that is Envoy's"):
            InferenceSettings(**needed, **asked)  # type: ignore[arg-type]  # as the environment gives them
    else:
        assert InferenceSettings(**needed, **asked).needs_envoy == needs  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(("quota", "cpus"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 10_000)])
def test_a_container_s_share_bounds_the_processors(quota: str, cpus: int, tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert available_cpus(file) == min(cpus, len(os.sched_getaffinity(0)))
    assert available_cpus(tmp_path / "none") == len(os.sched_getaffinity(0))
