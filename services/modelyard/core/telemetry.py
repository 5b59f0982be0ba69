"""What is served and trained here is nobody else's business."""

from __future__ import annotations

import os


def keep_onnx_runtime_quiet() -> None:
    """Has ONNX Runtime send nothing to its makers, unless the variable is set already. Call before it is imported.

    Its packages for Linux otherwise send what they load and run, keep an identifier of the machine in the home
    directory, and end up to 10 s later where the receiver cannot be reached.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
