"""What an inference pod can be told, by environment variables `MODELYARD_INFERENCE_*`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from modelyard.core.settings import MEBIBYTE, ServiceSettings
from modelyard.envoy.addresses import parse_address
from modelyard.inference.serving.memory import available_memory

GIBIBYTE = 1024 * MEBIBYTE


def _pod_name() -> str:
    return f"{socket.gethostname()}/{os.getpid()}"


class InferenceSettings(ServiceSettings):
    """Read once at start; wrong values end the program with the variable's name."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_INFERENCE_", frozen=True, extra="ignore")

    lane: Literal["auto", "direct", "express", "plain"] = "auto"
    """How calls reach Python. `direct`: over an HTTP/2 server of the pod's own, without TLS and access log (see
    docs/adr/0023-the-direct-lane.md). `express`: this program is an Envoy that hosts the interpreter (see
    docs/adr/0016-the-express-lane.md). `plain`: a gRPC server in Python alone, many times slower. `auto`: the first of
    them that can do what the settings ask for, here."""

    run_dir: Path | None = None
    """Where the direct and the express lane make a temporary folder for what they need while they run: sockets (so the
    path must be short) and Envoy's configuration. Default: where the system keeps such folders."""

    tls_certificate_file: Path | None = None
    """PEM file with the certificate chain. With `tls_key_file`: TLS 1.2 or newer on the port; without: cleartext."""

    tls_key_file: Path | None = None
    """PEM file with the certificate's private key."""

    max_connections: int = Field(default=20_000, gt=0)
    """Connections at a time on the direct and the express lane; more are refused."""

    envoy_threads: int = Field(default=1, ge=1, le=64)
    """Threads of Envoy on the express lane. One carries what one Python interpreter can answer."""

    access_log: bool = False
    """A JSON line per call on standard error, written by Envoy, so on the express lane only: status, times, sizes,
    request id. No tokens, no contents. Without it only calls that failed are logged, and calls other than
    predictions."""

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
    """Where graphs run. `auto`: CUDA if it works here (with `onnxruntime-gpu`), else the processor. `cuda` fails to
    start without it."""

    cuda_tf32: bool = False
    """Lets a GPU multiply with a mantissa of ten bits (TF32). That is quicker, and answers then differ by more than
    rounding from those of the processor, on which trained versions are checked."""

    runners: int | None = Field(default=None, ge=1, le=1024)
    """Batches (or requests, without batching) of one version that are computed at once, each in a thread. A model's own
    setting comes first, here and for the following four. Default: as many as there are processors that this process
    may use; fewer, with several threads each, where that is measured to serve more when a version is loaded."""

    graph_threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads inside one computation. More than one helps a lone caller of a large graph and costs throughput, unless
    most of a run is reading weights. Default: 1, or as measured, see `runners`."""

    batching: bool = True
    """Whether requests may be computed together at all. If so, each version that is loaded is tried out: they are where
    that is measured to be faster and every caller's answer is the same as alone."""

    queue_size: int = Field(default=1024, ge=0)
    """Requests of one version that may wait; one more is answered RESOURCE_EXHAUSTED."""

    stream_requests: int = Field(default=64, ge=1)
    """Requests of one stream that are computed at once; more are read when these are answered."""

    system_shared_memory: bool = False
    """Lets clients on the same machine register objects of /dev/shm and keep tensors there. Whoever may predict can
    then read and write every object there that this process may open: see docs/open-inference-protocol.md."""

    max_batch_size: int = Field(default=1024, ge=1)
    """The most rows of one request, and of requests that are computed together, for models with a batch dimension."""

    warm_up_batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 64)
    """A new version computes these batches before it is served; one that cannot is refused. Batches that would take
    more than ten seconds are left out."""

    trial_loads: bool = True
    """A new version is loaded and computes zeros in a process of its own first: one that crashes, asks for more memory
    than there is or comes to no end is refused there. Off, a hostile version can take the pod with it. On a GPU there
    is no such trial."""

    trial_time_s: float = Field(default=120.0, gt=0)
    """The longest such a trial may take."""

    max_run_s: float = Field(default=60.0, gt=0)
    """The longest that one run of a graph may take; then it is stopped between two nodes of the graph and its callers
    are answered DEADLINE_EXCEEDED. In a trial half of it: a version that computes zeros for longer is refused."""

    memory_budget_bytes: int = Field(default_factory=lambda: available_memory() // 2, ge=0)
    """What all loaded versions may take together. Where a version does not fit, models that have not been used for the
    longest time are unloaded; a request loads them again. 0: no limit. Default: half of the memory. With a GPU it is
    the GPU's memory that this is about: set it."""

    memory_turn_s: float = Field(default=10.0, ge=0)
    """A model that was loaded stays loaded for so long, whoever else needs room: models that take turns in too little
    memory would otherwise do nothing but load."""

    on_demand_wait_s: float = Field(default=30.0, gt=0)
    """How long a request for a model that was unloaded to save memory waits for it, unless its deadline comes first."""

    on_demand_waiters: int = Field(default=1024, ge=0)
    """How many such requests may wait; one more is answered RESOURCE_EXHAUSTED."""

    run_memory_bytes: int = Field(default_factory=lambda: available_memory() // 4, ge=0)
    """What predictions may take together for inputs, results and what lies between, beside `memory_budget_bytes`, in
    graphs where values or lengths of the input decide how much. 0: no limit. Default: a quarter of the memory."""

    mapped_weights_from_bytes: int = Field(default=0, ge=0)
    """Weights in a file of their own, of this size or larger, stay in that file, mapped into memory: the version loads
    at once, and the memory is the system's cache, shared by all that have the file mapped. It computes slower, since
    the weights are not rearranged for the processor. 0: never."""

    parallel_loads: int = Field(default=2, ge=1)
    """Versions that are downloaded and loaded at once."""

    load_retry_first_s: float = Field(default=1.0, gt=0)
    """A version that could not be loaded is tried again after about so long, then after twice that, and so on."""

    load_retry_limit_s: float = Field(default=60.0, gt=0)
    """The longest wait between two tries."""

    watch_silence_s: float = Field(default=30.0, gt=0)
    """The registry speaks every few seconds; after so long without a word the connection is made anew."""

    @property
    def tls(self) -> tuple[Path, Path] | None:
        """Files with certificate chain and private key; None for cleartext."""
        certificate, key = self.tls_certificate_file, self.tls_key_file
        return (certificate, key) if certificate is not None and key is not None else None

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file belong together: give both or neither")
        for path in self.tls or ():
            if not path.is_file():
                raise ValueError(f"no such file: {path}")
        return self

    @model_validator(mode="after")
    def _direct_lane_can_do_it(self) -> Self:
        if self.lane == "direct" and self.needs_envoy:
            raise ValueError(f"the direct lane has no {self.needs_envoy}: that is Envoy's, on the express lane")
        return self

    @property
    def needs_envoy(self) -> str:
        """What of these settings only Envoy can do; empty if nothing."""
        if self.tls is not None:
            return "TLS"
        return "access log" if self.access_log else ""

    @field_validator("listen")
    @classmethod
    def _listen_is_an_address(cls, value: str) -> str:
        parse_address(value, lowest_port=0)
        return value
