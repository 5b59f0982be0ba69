"""Writes the reference models to disk, as ONNX files and as what several servers load.

* `graphs`: the ONNX files, for every server that loads those.
* `triton`: a model repository for Triton (Python backend or ONNX Runtime backend).
* `mlserver`: settings and a runtime for MLServer.
* `kserve`: a program on KServe's Python server.
"""
