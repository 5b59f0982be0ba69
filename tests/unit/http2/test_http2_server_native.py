"""The C side of the HTTP/2 server under sanitizers, as a pod's own and as a door, among others that misbehave."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
COMPILER = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
STREAMS = {"http2_server_stress.c": 15_000, "door_stress.c": 6_000}
SEEDS = (1, 2, 3)
SANITIZERS = "address,undefined"


def _has_nghttp2() -> bool:
    try:
        ctypes.CDLL("libnghttp2.so.14")
    except OSError:
        return False
    return True


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
@pytest.mark.skipif(not _has_nghttp2(), reason="there is no nghttp2")
@pytest.mark.parametrize("source", STREAMS)
def test_every_stream_that_stays_has_its_answer_and_nothing_is_left(source: str, tmp_path: Path) -> None:
    program = tmp_path / "stress"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]
    flags += [f"-fsanitize={SANITIZERS}", "-o", str(program)]
    command = [*str(COMPILER).split(), *flags, str(NATIVE / source), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:
        pytest.skip(f"this compiler has no {SANITIZERS} sanitizer")
    assert built.returncode == 0, built.stderr
    for seed in SEEDS:
        run = [program, str(tmp_path), str(STREAMS[source]), str(seed)]
        done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
