"""The files of a version: the graph alone, or with the file that holds its weights."""

from __future__ import annotations

import asyncio
from pathlib import Path

from modelyard.inference.serving.desired import WantedVersion

from .artifacts import ArtifactCache


async def fetch_version(artifacts: ArtifactCache, wanted: WantedVersion) -> Path:
    """The ONNX file, verified, with its weights, verified, where it finds them. `release_version` must follow.

    Raises what `ArtifactCache.fetch` raises.
    """
    path = await artifacts.fetch(wanted.digest, wanted.size_bytes)
    weights = wanted.weights
    if weights is None:
        return path
    try:
        await artifacts.fetch(weights.digest, weights.size_bytes)
    except BaseException:
        artifacts.release(wanted.digest)
        raise
    try:
        return await asyncio.to_thread(artifacts.pair, wanted.digest, weights.digest, weights.location)
    except BaseException:
        release_version(artifacts, wanted)
        raise


def release_version(artifacts: ArtifactCache, wanted: WantedVersion) -> None:
    """Ends what one `fetch_version` began."""
    artifacts.release(wanted.digest)
    if wanted.weights is not None:
        artifacts.release(wanted.weights.digest)
