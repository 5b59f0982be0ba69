"""The inference pod: serves what the registry says should be served, over the Open Inference Protocol."""

from modelyard.core.telemetry import keep_onnx_runtime_quiet

keep_onnx_runtime_quiet()
