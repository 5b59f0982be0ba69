"""What a worker computes on, asked of the driver's own program: importing torch here would take seconds and memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

CPU = "cpu"

_ASK_S = 10.0


def describe_hardware(environment: Mapping[str, str] = os.environ) -> str:
    """The accelerators that a trainer sees, such as `NVIDIA H100 80GB HBM3` or `2 x NVIDIA A100-SXM4-40GB`; else `cpu`.

    `CUDA_VISIBLE_DEVICES` in `environment` chooses among them, by number or by identity, as it does for CUDA.
    """
    names = _visible(_ask(environment), environment.get("CUDA_VISIBLE_DEVICES"))
    if not names:
        return CPU
    kinds = dict.fromkeys(names)
    return ", ".join(kind if (count := names.count(kind)) == 1 else f"{count} x {kind}" for kind in kinds)


def _ask(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Identity and name of every GPU of this machine."""
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return []
    command = [program, "--query-gpu=uuid,name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=True)  # noqa: S603 - found on PATH
    except (OSError, subprocess.SubprocessError):
        return []
    lines = (line.partition(",") for line in answer.stdout.splitlines() if line.strip())
    return [(identity.strip(), name.strip()) for identity, _, name in lines]


def _visible(gpus: list[tuple[str, str]], chosen: str | None) -> list[str]:
    """Names of the chosen ones; as for CUDA, what comes after an entry that is none counts no more."""
    if chosen is None:
        return [name for _identity, name in gpus]
    names = []
    for entry in chosen.split(","):
        name = _find(gpus, entry.strip())
        if name is None:
            break
        names.append(name)
    return names


def _find(gpus: list[tuple[str, str]], entry: str) -> str | None:
    if entry.isdecimal():
        return gpus[int(entry)][1] if int(entry) < len(gpus) else None
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    # A slice of a GPU has an identity of its own, which is not in this list: named after what it is a slice of.
    if entry.startswith("MIG-"):
        return f"MIG of {gpus[0][1]}" if gpus else None
    return next((name for identity, name in gpus if identity.startswith(entry)), None)
