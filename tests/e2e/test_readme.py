"""What the README tells a visitor to type does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.documentation import ROOT
from support.local_cluster import UpCluster
from support.waiting import eventually_sync

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()


def example(language: str, part: str) -> str:
    """The one example in that language that has this part."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if part in block]
    return found


def type_in(cluster: UpCluster, *command: str | Path) -> str:
    """What a program prints for somebody with the environment active, in the project's folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    finished = subprocess.run(
        command, cwd=ROOT, env=cluster.environment | {"PATH": path},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_the_quickstart_and_the_python_example(cluster: UpCluster, tmp_path: Path) -> None:
    commands = example("sh", "datasets upload").replace("/tmp", str(tmp_path)).splitlines()
    prediction = next(command for command in commands if "predict" in command)
    for command in commands:
        if command != prediction:
            type_in(cluster, "bash", "-c", command)

    def answered() -> bool:
        return cluster.run("predict", "diabetes", "--data", f"[{[0] * 10}]").returncode == 0

    eventually_sync(answered)
    assert type_in(cluster, "bash", "-c", prediction).startswith("prediction ")

    (tmp_path / "my-training.yaml").write_text(example("yaml", "dataset:"))
    assert "good" in cluster.run("train", "submit", tmp_path / "my-training.yaml", "--check").stdout
    code = example("python", "modelyard.Client()").replace("my-training.yaml", str(tmp_path / "my-training.yaml"))
    assert "by version" in type_in(cluster, sys.executable, "-c", code)
