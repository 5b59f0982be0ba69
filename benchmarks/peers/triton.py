"""Triton Inference Server 2.51: its own binary, as NVIDIA's pytriton wheel brings it, with its Python backend.

The wheel has no ONNX Runtime backend, so the graph runs in ONNX Runtime inside the Python backend. pytriton's own layer
(a proxy model that talks to another process) is left out: it would only be slower.
"""

from __future__ import annotations

import shutil
import signal
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environments import SetUpFailed
from benchmarks.signature import Signature, Tensor, read
from benchmarks.workshop import free_port

from .peer import INSIDE, ModelFile, Peer, Plan, Tuning

_TYPES = {"BYTES": "TYPE_STRING"}
_SHARED_MEMORY = Path("/dev/shm")


class Triton(Peer):
    """Needs an interpreter with a shared libpython, of a version that the wheel has a stub for (3.8 to 3.13)."""

    name = "triton"
    package = "nvidia-pytriton"

    def plan(self, place: Path, work: Path, port: int, models: Sequence[ModelFile]) -> Plan:
        """A model repository and a backend folder with the stub for our interpreter."""
        packages = place / f"lib/python{_version()}/site-packages"
        shipped = packages / "pytriton/tritonserver"
        backends = work / "backends"
        shutil.copytree(shipped / "backends", backends)
        stub = shipped / "python_backend_stubs" / _version() / "triton_python_backend_stub"
        if not stub.exists():
            raise SetUpFailed(f"Triton's wheel has no Python backend for Python {_version()}")
        shutil.copy(stub, backends / "python" / stub.name)
        for model in models:
            _write_model(work / "models" / model.name, model)
        command = [
            str(shipped / "bin/tritonserver"),
            f"--model-repository={work / 'models'}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={_memory_prefix(work)}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={port}",
            "--http-address=127.0.0.1",
            f"--http-port={free_port()}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={free_port()}",
        ]
        environment = {
            "LD_LIBRARY_PATH": f"{packages / 'nvidia_pytriton.libs'}:{_libpython_folder()}",
            "PATH": f"{place / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(packages),
        }
        return Plan(command, environment, signal.SIGINT)

    def clean_up(self, work: Path) -> None:
        """The backend's shared memory stays when its processes are killed."""
        for region in _SHARED_MEMORY.glob(f"{_memory_prefix(work)}*"):
            region.unlink(missing_ok=True)


def _version() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _libpython_folder() -> Path:
    place = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    library = f"libpython{_version()}.so.1.0"
    if (place / library).exists():
        return place
    machine = place / (sysconfig.get_config_var("MULTIARCH") or "")
    if (machine / library).exists():
        return machine
    raise SetUpFailed(f"Triton needs {library}; build Python with --enable-shared or install libpython{_version()}")


def _memory_prefix(work: Path) -> str:
    return f"{work.name}_"


def _write_model(place: Path, model: ModelFile) -> None:
    """A model's folder: its settings, the code that runs it, the graph."""
    (place / "1").mkdir(parents=True)
    (place / "config.pbtxt").write_text(settings(model.name, read(model.path), model.tuning))
    shutil.copy(INSIDE / "triton_model.py", place / "1" / "model.py")
    (place / "1" / "model.onnx").symlink_to(model.path.resolve())


def settings(name: str, signature: Signature, tuning: Tuning) -> str:
    """A model's `config.pbtxt`."""
    batch = tuning.max_batch_size if signature.batches else 0
    lines = [
        f'name: "{name}"',
        'backend: "python"',
        f"max_batch_size: {batch}",
        *(f"input {_tensor(tensor, batched=batch > 0)}" for tensor in signature.inputs),
        *(f"output {_tensor(tensor, batched=batch > 0)}" for tensor in signature.outputs),
        f"instance_group {{ kind: KIND_CPU count: {tuning.instances} }}",
        f'parameters {{ key: "graph_threads" value: {{ string_value: "{tuning.graph_threads}" }} }}',
        *(["dynamic_batching { }"] if batch else []),
    ]
    return "\n".join(lines) + "\n"


def _tensor(tensor: Tensor, *, batched: bool) -> str:
    """With batching on, Triton's settings leave the batch dimension out."""
    sizes = ", ".join(str(size) for size in (tensor.shape[1:] if batched else tensor.shape))
    kind = _TYPES.get(tensor.datatype, f"TYPE_{tensor.datatype}")
    return f'{{ name: "{tensor.name}" data_type: {kind} dims: [ {sizes} ] }}'
