"""What an inference pod can be told, by environment variables `MODELYARD_INFERENCE_*`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from modelyard.core.settings import MEBIBYTE, ServiceSettings

from .cpus import available_cpus

GIBIBYTE = 1024 * MEBIBYTE


def _pod_name() -> str:
    return f"{socket.gethostname()}/{os.getpid()}"


class InferenceSettings(ServiceSettings):
    """Read once at start; wrong values end the program with the variable's name."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_INFERENCE_", frozen=True, extra="ignore")

    registry_address: str
    """`host:port` or `unix:/path`."""

    cache_dir: Path
    """Private folder for artifacts and the last known desired state. Losing it costs a download. One pod each."""

    cache_limit_bytes: int = Field(default=20 * GIBIBYTE, gt=0)
    """Artifacts that are not served are deleted, least recently used first, to stay below."""

    pod: str = Field(default_factory=_pod_name, min_length=1, max_length=200)
    """The pod's name in the registry's log. Default: `host/process`."""

    max_request_bytes: int = Field(default=64 * MEBIBYTE, gt=0)
    """A larger request is answered RESOURCE_EXHAUSTED with the reason TOO_LARGE."""

    anonymous_predict: bool = False
    """Lets callers without a token predict. For a pod that only trusted programs reach."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where graphs run. `auto`: CUDA if ONNX Runtime has it, else the processor. `cuda` fails to start without it."""

    request_threads: int = Field(default_factory=available_cpus, ge=1, le=1024)
    """Predictions of one version that are computed at once. Default: the processors this process may use."""

    graph_threads: int = Field(default=1, ge=1, le=1024)
    """Threads inside one prediction. More than one helps a lone caller of a large graph and costs throughput."""

    queue_size: int = Field(default=512, ge=0)
    """Predictions of one version that may wait for a thread; one more is answered RESOURCE_EXHAUSTED."""

    stream_requests: int = Field(default=64, ge=1)
    """Requests of one stream that are computed at once; more are read when these are answered."""

    system_shared_memory: bool = False
    """Lets clients on the same machine register objects of /dev/shm and keep tensors there. Whoever may predict can
    then read and write every object there that this process may open: see docs/open-inference-protocol.md."""

    max_batch_size: int = Field(default=1024, ge=1)
    """The most rows of one request, for models with a batch dimension."""

    warm_up_batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 64)
    """A new version computes these batches before it is served; one that cannot is refused."""

    parallel_loads: int = Field(default=2, ge=1)
    """Versions that are downloaded and loaded at once."""

    load_retry_first_s: float = Field(default=1.0, gt=0)
    """A version that could not be loaded is tried again after about so long, then after twice that, and so on."""

    load_retry_limit_s: float = Field(default=60.0, gt=0)
    """The longest wait between two tries."""

    watch_silence_s: float = Field(default=30.0, gt=0)
    """The registry speaks every few seconds; after so long without a word the connection is made anew."""
