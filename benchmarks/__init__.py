"""Measures Modelyard beside other servers and beside the limits of the machine: `python -m benchmarks`."""

from modelyard.core.telemetry import keep_onnx_runtime_quiet

keep_onnx_runtime_quiet()
