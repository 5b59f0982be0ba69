"""What a worker says that it computes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard_workers.hardware import describe_hardware

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB"
LISTED = f"GPU-aaaa, {H100}\nGPU-bbbb, {H100}\nGPU-cccc, {A100}\n"


def machine(folder: Path, listed: str, code: int = 0) -> dict[str, str]:
    """The environment of a machine whose driver's program prints `listed`."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{listed}'\nexit {code}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, f"2 x {H100}, {A100}"),
        ("0", H100),
        ("2,0", f"{A100}, {H100}"),
        ("GPU-cc", A100),
        ("", "cpu"),
        ("-1", "cpu"),
        ("0,7,1", H100),
        ("MIG-1234", f"MIG of {H100}"),
    ],
)
def test_the_chosen_gpus_are_named(tmp_path: Path, chosen: str | None, expected: str) -> None:
    environment = machine(tmp_path, LISTED.replace("\n", "\\n"))
    if chosen is not None:
        environment["CUDA_VISIBLE_DEVICES"] = chosen
    assert describe_hardware(environment) == expected


def test_without_a_driver_or_with_a_broken_one_it_is_the_cpu(tmp_path: Path) -> None:
    assert describe_hardware({"PATH": str(tmp_path)}) == "cpu"
    assert describe_hardware(machine(tmp_path, "no devices were found", code=6)) == "cpu"
