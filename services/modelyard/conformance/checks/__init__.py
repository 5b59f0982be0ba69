"""The checks, one module for each section or two; importing this package registers all of them."""

from __future__ import annotations

from . import (
    calls,
    classification,
    config,
    contents,
    datatypes,
    infer,
    memory,
    model,
    outputs,
    parameters,
    refusals,
    repository,
    server,
    settings,
    statistics,
    stream,
    surroundings,
    wire,
)

__all__ = [
    "calls",
    "classification",
    "config",
    "contents",
    "datatypes",
    "infer",
    "memory",
    "model",
    "outputs",
    "parameters",
    "refusals",
    "repository",
    "server",
    "settings",
    "statistics",
    "stream",
    "surroundings",
    "wire",
]
