"""The C side of the crossing under sanitizers, driven as Envoy and Python drive it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

STRESS = Path(__file__).parents[2] / "native" / "crossing_stress.c"
COMPILER = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
STREAMS = 10_000


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_no_call_is_lost_or_touched_after_its_end(tmp_path: Path, sanitizer: str) -> None:
    program = tmp_path / "stress"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command = [*str(COMPILER).split(), *flags, f"-fsanitize={sanitizer}", "-o", str(program), str(STRESS)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:
        pytest.skip(f"this compiler has no {sanitizer} sanitizer")
    assert built.returncode == 0, built.stderr
    for seed in (1, 2):
        done = subprocess.run(
            [program, str(STREAMS), str(seed)], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "left 0" in done.stdout
