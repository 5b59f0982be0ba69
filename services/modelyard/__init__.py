"""Modelyard: submit a training job over gRPC, have its ONNX result served by every pod seconds later."""
