"""Whether this pod's ONNX Runtime can load a version at all, found out before anything is downloaded.

The runtime has no call that says which operator sets and file formats it takes. So it is asked with the smallest graph
there is, marked with the version's numbers.
"""

from __future__ import annotations

from functools import cache

import onnxruntime as ort

from modelyard.core.errors import MalformedContent
from modelyard.inference.execution.sessions import LOAD_ERRORS, brief

from .smallest_graph import smallest_graph


def check_runtime_supports(opset_version: int, ir_version: int) -> None:
    """Raises MalformedContent, with the runtime's words, if it takes no graph of this operator set and file format."""
    refusal = _refusal(opset_version, ir_version)
    if refusal:
        raise MalformedContent(
            f"the graph has operator set {opset_version} and file format {ir_version}; "
            f"ONNX Runtime {ort.__version__} refuses them: {refusal}"
        )


@cache
def _refusal(opset_version: int, ir_version: int) -> str:
    """Why the runtime refuses, empty if it does not. Few pairs exist, and the answer never changes in a process."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(smallest_graph(opset_version, ir_version), options, ["CPUExecutionProvider"])
    except LOAD_ERRORS as error:
        return brief(error)
    return ""
