"""Writes all forms of the reference models into one folder."""

from __future__ import annotations

from pathlib import Path

from .graphs import write_graphs
from .kserve import write_kserve_program
from .mlserver import write_mlserver_folder
from .triton import write_triton_onnx_repository, write_triton_repository


def write_models(folder: Path) -> dict[str, Path]:
    """Writes them; answers what is where, in words for people."""
    parts = {
        "ONNX files": folder / "onnx",
        "Triton, Python backend: tritonserver --model-repository": folder / "triton",
        "Triton, ONNX Runtime backend: tritonserver --model-repository": folder / "triton-onnxruntime",
        "MLServer: mlserver start": folder / "mlserver",
        "KServe's Python server: python serve.py in": folder / "kserve",
    }
    write_graphs(parts["ONNX files"])
    write_triton_repository(folder / "triton")
    write_triton_onnx_repository(folder / "triton-onnxruntime", folder / "onnx")
    write_mlserver_folder(folder / "mlserver")
    write_kserve_program(folder / "kserve")
    return parts
