"""ONNX Runtime: makes a session of an artifact and computes with it. The only module that knows the runtime."""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from modelyard.core.errors import DeadlineExceeded, InvalidFields, MalformedContent, ResourceExhausted, WrongState
from modelyard.core.logs import get_logger
from modelyard.oip.datatypes import DATATYPES, Datatype
from modelyard.oip.tensors import Array

from .devices import CPU, CUDA, cuda_computes, cuda_options
from .run_memory import RunMemory
from .run_watch import RunWatch
from .signature import Signature, TensorInfo

_DATATYPES: dict[str, Datatype] = {
    "tensor(bool)": DATATYPES["BOOL"],
    "tensor(float16)": DATATYPES["FP16"],
    "tensor(float)": DATATYPES["FP32"],
    "tensor(double)": DATATYPES["FP64"],
    "tensor(bfloat16)": DATATYPES["BF16"],
    "tensor(string)": DATATYPES["BYTES"],
    **{f"tensor({name.lower()})": datatype for name, datatype in DATATYPES.items() if "INT" in name},
}
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_WARM_UP_S = 10.0
"""A batch that is expected to take longer is not computed at load: nobody would be served meanwhile."""
_BRIEF = 500
_PLACE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |\S+\.(?:cc|h):\d+ .*?\) ")
"""`[ONNXRuntimeError] : 1 : FAIL : ` and `/source/model.cc:256 onnxruntime::Model::Model(…) `."""

LOAD_ERRORS: tuple[type[Exception], ...] = (
    ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph, ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented, ort_errors.RuntimeException, ort_errors.NoSuchFile, ort_errors.EPFail,
)  # fmt: skip
"""What ONNX Runtime raises for a file that it does not load. They share no base below Exception."""

REFUSALS: tuple[type[Exception], ...] = (InvalidFields, ResourceExhausted, *LOAD_ERRORS)
"""What `GraphSession.run` raises for made-up inputs that a graph, or the memory it may take, is not made for."""

_OUT_OF_MEMORY = ("Failed to allocate memory", "Available memory of", "bad_alloc")
"""What the runtime says when it gets no memory; it has no error class for that."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """How sessions are made."""

    graph_threads: int = 1
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    mapped_weights: bool = False
    """Leaves weights in their file, mapped, instead of rearranging copies of them: loads at once, computes slower."""

    tf32: bool = False
    """Lets a GPU multiply with a mantissa of ten bits: quicker, and with other answers than the processor's."""

    def providers(self) -> list[str]:
        """ONNX Runtime's providers, best first. Raises WrongState if CUDA is demanded and does not work here."""
        has_cuda = self.device != "cpu" and cuda_computes()
        if self.device == "cuda" and not has_cuda:
            raise WrongState(
                "device is cuda, but this ONNX Runtime computes nothing with CUDA here: it is the build without it, or "
                "the GPU, its driver or CUDA's libraries are missing"
            )
        return [CUDA, CPU] if has_cuda else [CPU]

    def provider_options(self) -> list[dict[str, str]]:
        """For each of the providers."""
        return [cuda_options(tf32=self.tf32) if name == CUDA else {} for name in self.providers()]

    @property
    def on_gpu(self) -> bool:
        """Whether sessions run on an accelerator."""
        return len(self.providers()) > 1

    def session_options(self) -> ort.SessionOptions:
        """For one session. Threads that spin while they wait would take the processor from other sessions."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.graph_threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        if self.mapped_weights:
            options.add_session_config_entry("session.disable_prepacking", "1")
        options.log_severity_level = 4  # fatal only: errors are raised too, and logged by us, one line each
        return options


class RunControl:
    """Stops a run from another thread. For one run, or several of which none should go on after a stop."""

    __slots__ = ("options", "overdue")

    def __init__(self) -> None:
        self.options = ort.RunOptions()
        self.overdue = False
        """Whether it was stopped because it took longer than the pod allows."""

    def stop(self) -> None:
        """The run ends with an error before it begins the next node of the graph; a later run at once."""
        self.options.terminate = True


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Bounds on what one run may take. None: no bound."""

    watch: RunWatch | None = None
    """Bounds the time."""
    memory: RunMemory | None = None
    """Bounds the memory, together with all other sessions that use it."""


UNLIMITED = RunLimits()


class GraphSession:
    """A loaded graph. `run` may be called from several threads at once and lets other Python threads run."""

    def __init__(self, path: Path, options: RuntimeOptions, limits: RunLimits = UNLIMITED) -> None:
        """Raises MalformedContent, with the runtime's reason, for a file that it does not load."""
        self._limits = limits
        self.runs_in_caller = options.graph_threads == 1 and not options.on_gpu
        """Whether the thread that calls `run` does all of its work."""
        session_options = options.session_options()
        if limits.memory is not None:
            limits.memory.use_for(session_options)
        try:
            self._session = ort.InferenceSession(
                str(path), session_options, options.providers(), options.provider_options()
            )
        except LOAD_ERRORS as error:
            # The path is the pod's own affair.
            raise MalformedContent(f"the runtime refuses the graph: {brief(error, str(path))}") from error
        # The wrapper around it looks for missing inputs, which a batch never has, and turns to another provider after a
        # fault; for a small graph that is half of the time. The runtime does not promise that it stays inside.
        self._run = getattr(self._session, "_sess", self._session).run
        self.signature = Signature.of(
            [_tensor_info(argument) for argument in self._session.get_inputs()],
            [_tensor_info(argument) for argument in self._session.get_outputs()],
        )
        """As the runtime sees it. Who knows better what the file declares may replace it by that."""
        self.all_outputs = [tensor.name for tensor in self.signature.outputs]
        self._takes_bfloat16 = _has(self.signature.inputs, "BF16")
        self._answers_bfloat16 = _has(self.signature.outputs, "BF16")
        if self._answers_bfloat16 and _has(self.signature.inputs, "BYTES"):
            raise MalformedContent(
                "the graph has inputs of BYTES and outputs of BF16: the runtime computes one or the other, not both"
            )

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], control: RunControl | None = None) -> list[Array]:
        """Computes these outputs. Text is `str` in both directions, BF16 its bits as uint16. `control` may stop it.

        Raises InvalidFields if the graph refuses these inputs, DeadlineExceeded if it was stopped because it took too
        long, ResourceExhausted if it needs more memory than it may have; what else the runtime raises is a fault of the
        graph, or due to `control`.
        """
        control = RunControl() if control is None else control
        watch = self._limits.watch
        if watch is not None:
            watch.begin(control)
        try:
            return self._compute(feeds, outputs, control.options)
        except ort_errors.InvalidArgument as error:
            raise _refused(error) from error
        except (ort_errors.Fail, ort_errors.RuntimeException, MemoryError) as error:
            if _is_out_of_memory(error):
                return self._compute_again(feeds, outputs, control)
            self._explain(error, control)
        finally:
            if watch is not None:
                watch.end(control)

    def _compute(self, feeds: Mapping[str, Array], outputs: Sequence[str], options: ort.RunOptions) -> list[Array]:
        if self._answers_bfloat16:
            return self._run_bfloat16(feeds, outputs, options)
        if self._takes_bfloat16:
            feeds = {name: self._fed(name, array) for name, array in feeds.items()}
        return self._run(outputs, feeds, options)  # type: ignore[no-any-return]  # onnxruntime has no types

    def _compute_again(self, feeds: Mapping[str, Array], outputs: Sequence[str], control: RunControl) -> list[Array]:
        """Once more, after what other runs have left behind in the shared memory has been given back."""
        memory = self._limits.memory
        try:
            if memory is not None:
                memory.reclaim()
                return self._compute(feeds, outputs, control.options)
        except (ort_errors.Fail, ort_errors.RuntimeException, MemoryError) as error:
            if not _is_out_of_memory(error):
                self._explain(error, control)
        limit = "" if memory is None else f" ({memory.limit_bytes} bytes for all runs of the pod and their weights)"
        raise ResourceExhausted(f"computing this takes more memory than there is{limit}; smaller inputs take less")

    def _explain(self, error: Exception, control: RunControl) -> NoReturn:
        """Raises what a caller is told of an error in the middle of a run."""
        if control.overdue and self._limits.watch is not None:
            raise DeadlineExceeded(
                f"the graph computed for longer than {self._limits.watch.limit_s:g} s, the most this pod allows, and "
                "was stopped"
            ) from error
        # Shapes that the signature allows one by one, and that do not fit together.
        if self.signature.free_shapes and not control.options.terminate:
            raise _refused(error) from error
        raise error

    def warm_up(self, batch_sizes: Iterable[int]) -> None:
        """Computes zeros at each batch size, so that no caller waits for what a first run prepares.

        Sizes that would take very long, by what the one before took, are left out. Raises what the runtime raises for a
        graph at fault. Inputs that the graph refuses prove nothing: the zeros, and the sizes of free dimensions beside
        the batch, are only our guess.
        """
        row_s = 0.0
        for batch_size in sorted(set(batch_sizes)) if self.signature.batched else [1]:
            if row_s * batch_size > _WARM_UP_S:
                log.info("warm-up ends here: larger batches take too long", batch_size=batch_size, row_s=row_s)
                return
            begun = time.perf_counter()
            try:
                self.run(self._zeros(batch_size), self.all_outputs)
            except InvalidFields:
                log.info("warm-up passed over: the graph takes no zeros", batch_size=batch_size)
                return
            row_s = (time.perf_counter() - begun) / batch_size

    def _zeros(self, batch_size: int) -> dict[str, Array]:
        return {tensor.name: _zero_tensor(tensor, batch_size) for tensor in self.signature.inputs}

    def _run_bfloat16(self, feeds: Mapping[str, Array], outputs: Sequence[str], options: ort.RunOptions) -> list[Array]:
        """NumPy has no bfloat16: the runtime gives these tensors as its own values only, and then takes only those."""
        fed = {name: self._fed(name, array) for name, array in feeds.items()}
        values = {
            name: ort.OrtValue.ortvalue_from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in fed.items()
        }
        results = self._session.run_with_ort_values(list(outputs), values, options)
        return [_to_numpy(result) for result in results]

    def _fed(self, name: str, array: Array) -> Any:
        """As the runtime takes it: bits of BF16 as its own value, anything else as it is."""
        if self.signature.inputs_by_name[name].datatype.name != "BF16":
            return array
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array), _BFLOAT16)


def brief(error: BaseException, hide: str = "") -> str:
    """An error of the runtime in one line for people: without its source locations, and without `hide`."""
    text = " ".join(str(error).split())
    text = _PLACE.sub("", text.replace(hide, "the file") if hide else text)
    return text if len(text) <= _BRIEF else text[:_BRIEF] + "…"


def _has(tensors: Iterable[TensorInfo], datatype: str) -> bool:
    return any(tensor.datatype.name == datatype for tensor in tensors)


def _tensor_info(argument: Any) -> TensorInfo:
    datatype = _DATATYPES.get(argument.type)
    if datatype is None:
        raise MalformedContent(f"{argument.name} is a {argument.type}, which the protocol cannot carry")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in argument.shape)
    return TensorInfo(argument.name, datatype, shape)


def _zero_tensor(tensor: TensorInfo, batch_size: int) -> Array:
    shape = tuple(1 if size == -1 else size for size in tensor.shape)
    if tensor.shape[:1] == (-1,):
        shape = (batch_size, *shape[1:])
    try:
        if tensor.datatype.name == "BYTES":
            return np.full(shape, "", dtype=object)
        return np.zeros(shape, tensor.datatype.dtype)
    except (MemoryError, ValueError) as error:  # ValueError: more elements than can be counted
        raise ResourceExhausted(f"one request with the input {tensor} takes more memory than there is") from error


def _to_numpy(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()  # type: ignore[no-any-return]  # onnxruntime has no types
    shape = tuple(value.shape())
    bits = np.empty(shape, DATATYPES["BF16"].dtype)
    if bits.nbytes:
        # The value is a host tensor of the same layout, alive until this returns.
        ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
    return bits


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in _OUT_OF_MEMORY)


def _refused(error: Exception) -> InvalidFields:
    log.info("the graph refused its inputs", error=brief(error))
    return InvalidFields.one(
        "inputs", "expected values and a combination of shapes that the graph can compute with; it refused these"
    )
