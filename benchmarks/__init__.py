"""Measures Modelyard beside other servers and beside the limits of the machine: `python -m benchmarks`."""
