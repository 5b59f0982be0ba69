"""NVIDIA's perf_analyzer as a second opinion: it speaks the protocol itself, and pays for that on the same cores."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Protocol

import grpc

from benchmarks import environments, workshop
from benchmarks.environments import SetUpFailed
from benchmarks.models import sample_inputs
from benchmarks.signature import read
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import method_path

from .target import Load, Measured

_REQUIREMENTS = Path(__file__).with_name("perf_analyzer.txt")
_SPARE_S = 120.0
_WINDOWS = 3
_CONFIG_S = 30.0


class Speaker(Protocol):
    """The server to ask."""

    @property
    def address(self) -> str:
        """`host:port`."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""


class NoOpinion(Exception):
    """perf_analyzer did not measure; the text has its output."""


def measure(speaker: Speaker, model: str, path: Path, load: Load, seconds: float) -> Measured:
    """Loads a model with the sample inputs of its ONNX file, at `path`, in windows of so long.

    By itself perf_analyzer sends random numbers, which are no tokens of any vocabulary. Raises NoOpinion, SetUpFailed.
    """
    place = environments.environment("perf_analyzer", _REQUIREMENTS)
    (libraries,) = place.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib")
    inputs = workshop.folder("run") / f"{model}-inputs.json"
    inputs.write_text(json.dumps(input_data(path, batched=_is_batched(speaker, model))))
    command = [
        str(place / "bin/perf_analyzer"), "-m", model, "-u", speaker.address, "-i", "grpc", "--async",
        f"--input-data={inputs}",
        f"--concurrency-range={load.in_flight}", f"--measurement-interval={seconds * 1000:.0f}",
        f"--max-trials={_WINDOWS}", "--stability-percentage=999", "--percentile=50",
        *(argument for name, value in speaker.metadata for argument in ("-H", f"{name}:{value}")),
    ]  # fmt: skip
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds * _WINDOWS + _SPARE_S,
            env=os.environ | {"LD_LIBRARY_PATH": str(libraries)}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise NoOpinion("perf_analyzer did not end") from error
    return parse(finished.stdout, finished.stderr)


def input_data(path: Path, *, batched: bool) -> dict[str, Any]:
    """One request of one row as perf_analyzer reads it. `batched`: shapes are without the batch dimension."""
    samples = sample_inputs(read(path))
    return {
        "data": [
            {
                name: {"content": array.ravel().tolist(), "shape": list(array.shape[1:] if batched else array.shape)}
                for name, array in samples.items()
            }
        ]
    }


def _is_batched(speaker: Speaker, model: str) -> bool:
    """Whether the server keeps the batch dimension out of the model's shapes. Raises NoOpinion."""
    try:
        with grpc.insecure_channel(speaker.address) as channel:
            config = channel.unary_unary(
                method_path("ModelConfig"), pb.ModelConfigRequest.SerializeToString, pb.ModelConfigResponse.FromString
            )(pb.ModelConfigRequest(name=model), timeout=_CONFIG_S, metadata=speaker.metadata)
    except grpc.RpcError as error:
        raise NoOpinion(f"no configuration of {model}: {error}") from error
    return bool(config.config.max_batch_size > 0)


def parse(output: str, errors: str = "") -> Measured:
    """Reads the report's last block, which is there also if the figures never settled. Raises NoOpinion."""
    rates = re.findall(r"Throughput: ([\d.]+) infer/sec", output)
    counts = re.findall(r"Request count: (\d+)", output)
    medians = re.findall(r"p50 latency: (\d+) usec", output)
    means = re.findall(r"Avg latency: (\d+) usec", output) or medians
    if not (rates and counts and means) or not float(rates[-1]):
        raise NoOpinion(f"{output[-2000:]}{errors[-2000:]}")
    p50 = float(medians[-1]) if medians else None
    return Measured(float(rates[-1]), int(counts[-1]), float(means[-1]), p50)


__all__ = ["NoOpinion", "SetUpFailed", "measure", "parse"]
