"""Where graphs can be computed on this machine, and how ONNX Runtime is told to use a GPU."""

from __future__ import annotations

import contextlib
import io
from functools import cache
from typing import Final

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from modelyard.inference.loading.smallest_graph import smallest_graph

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"

_OPSET, _IR = 15, 8  # of the graph to try with; old enough for every runtime

_CUDA_OPTIONS: Final = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
"""The runtime's defaults are for one shape that never changes: each new batch size would have it try every algorithm of
every convolution, and its arena would double."""


@cache
def cuda_computes() -> bool:
    """Whether a graph can be computed with CUDA here.

    A runtime built for CUDA names the provider also where driver, libraries or GPU are missing, and then quietly
    computes on the processor.
    """
    if CUDA not in ort.get_available_providers():
        return False
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; the graph tells what matters
        ort.preload_dlls()  # where pip puts NVIDIA's libraries, no loader looks
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(smallest_graph(_OPSET, _IR), options, [CUDA])
    except (RuntimeError, ort_errors.Fail, ort_errors.EPFail, ort_errors.NotImplemented, ort_errors.RuntimeException):
        return False
    return CUDA in session.get_providers()


def cuda_options(*, tf32: bool) -> dict[str, str]:
    """The CUDA provider's options."""
    return {**_CUDA_OPTIONS, "use_tf32": "1" if tf32 else "0"}
