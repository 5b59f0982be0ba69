"""Which models there are, and how each is made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import environments, workshop

from . import plain

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class BenchmarkModel:
    """A model by name."""

    name: str
    description: str
    make: Callable[[Path], None]
    """Writes the ONNX file."""

    def file(self) -> Path:
        """The ONNX file; made if it is not there. Raises SetUpFailed."""
        path = workshop.folder("models") / f"{self.name}.onnx"
        if not path.exists():
            partial = path.with_suffix(".part")
            self.make(partial)
            partial.replace(path)
        return path


def _exported(name: str) -> Callable[[Path], None]:
    """By PyTorch, in an environment of its own: transformers is none of our dependencies."""

    def make(path: Path) -> None:
        place = environments.environment("models", _HERE / "requirements.txt", torch=True)
        scratch = workshop.folder("run") / f"{name}.onnx"
        environments.run(str(place / "bin/python"), str(_HERE / "inside/export.py"), name, str(scratch))
        shutil.move(scratch, path)

    return make


CATALOGUE = {
    model.name: model
    for model in (
        BenchmarkModel("small", "network 10-20-40-1", lambda path: plain.network(path, (10, 20, 40, 1))),
        BenchmarkModel("wide", "network 768-3072-3072-768", lambda path: plain.network(path, (768, 3072, 3072, 768))),
        BenchmarkModel("bert", "BERT-Small (4 layers, 512 wide), 64 tokens", _exported("bert")),
        BenchmarkModel("cnn", "ResNet-18, 224 × 224 pixels", _exported("cnn")),
        BenchmarkModel("tensors", "y = 2x + 1 on 150,000 floats (600 kB)", lambda path: plain.line(path, 150_000)),
    )
}
"""By name."""
