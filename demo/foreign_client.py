"""The stock Triton client, run from a virtual environment that has no Modelyard in it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PYTHON = HERE.parent / ".venv-tritonclient/bin/python"


@dataclass(frozen=True)
class Answer:
    """What one prediction brought."""

    version: str
    values: list[list[float]]
    parameters: dict[str, str]
    """The model configuration's parameters: where the version came from."""


@dataclass(frozen=True)
class LoadReport:
    """What a stretch of steady calling brought."""

    requests: int
    failed: int
    errors: list[str]
    first_answer: dict[str, float]
    """Unix time of the first answer by each version."""


class TritonClient:
    """Asks through the door with `tritonclient`."""

    def __init__(self, address: str, token: str) -> None:
        self._environment = {"PATH": os.environ["PATH"], "MODELYARD_ADDRESS": address, "MODELYARD_TOKEN": token}

    def predict(self, model: str, rows: Any, *, output: str) -> Answer:
        """Predictions for rows; raises CalledProcessError if the client fails."""
        question = {"model": model, "input": "input", "output": output, "rows": rows.tolist()}
        finished = subprocess.run(  # noqa: S603 - our own script
            [PYTHON, HERE / "triton_predict.py"],
            input=json.dumps(question), text=True, stdout=subprocess.PIPE, check=True, timeout=60,
            env=self._environment,
        )  # fmt: skip
        return Answer(**json.loads(finished.stdout))

    def keep_asking(self, model: str, row: Any) -> Load:
        """Starts asking again and again until `Load.stop`."""
        process = subprocess.Popen(  # noqa: S603 - our own script
            [PYTHON, HERE / "triton_load.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment,
        )  # fmt: skip
        return Load(process, {"model": model, "row": row.tolist()})


class Load:
    """A running caller."""

    def __init__(self, process: subprocess.Popen[str], question: dict[str, Any]) -> None:
        self._process = process
        assert process.stdin is not None  # noqa: S101 - it was asked for
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()

    def stop(self) -> LoadReport:
        """Ends it and answers what it counted."""
        printed, _ = self._process.communicate(timeout=60)
        return LoadReport(**json.loads(printed))

    def kill(self) -> None:
        """For the way out after an error."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
