"""The models that are measured: random weights from a fixed seed, made on first use."""

from .catalogue import CATALOGUE, BenchmarkModel
from .samples import sample_inputs

__all__ = ["CATALOGUE", "BenchmarkModel", "sample_inputs"]
