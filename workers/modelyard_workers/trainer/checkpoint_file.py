"""The file of a checkpoint: tensors in safetensors' format, everything else one JSON document in its metadata.

A file says what it belongs to, and has a sum over all that it holds: one that is broken is not read as something else.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .durable import whole_file

FORMAT = 1
"""Raised whenever an older trainer would misunderstand the file, or this one an older file."""

_DOCUMENT, _SUM = "modelyard.checkpoint", "modelyard.crc32"


class CheckpointUnusable(Exception):
    """A file cannot be gone on from; the message says why."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a checkpoint is of: two trainings that agree in spec and dataset take the same steps."""

    spec_digest: str
    """SHA-256 of the spec's canonical form, hexadecimal."""
    dataset_digest: str
    """SHA-256 of the dataset's content, hexadecimal."""
    job: str = ""
    """Whose training it is. Only so that the files of two jobs differ: a blob that both had would be removed with the
    one that ends first."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training at one moment, apart from it: nothing in here changes when the training goes on."""

    tensors: Mapping[str, Tensor]
    """By name, on the CPU, contiguous."""
    document: Mapping[str, Any]
    """What is not a tensor; JSON."""


def write_checkpoint(path: Path, origin: Origin, checkpoint: Checkpoint) -> int:
    """Writes the file, whole or not at all; answers its size in bytes. Raises OSError."""
    document = json.dumps(
        {
            "format": FORMAT,
            "job": origin.job,
            "spec_digest": origin.spec_digest,
            "dataset_digest": origin.dataset_digest,
            **checkpoint.document,
        },
        allow_nan=False,
    )
    metadata = {_DOCUMENT: document, _SUM: _sum(document, checkpoint.tensors)}
    with whole_file(path) as temporary:
        try:
            save_file(dict(checkpoint.tensors), temporary, metadata=metadata)
        except SafetensorError as error:  # an error of the system, of which the library keeps only the text
            raise OSError(str(error)) from error
        return temporary.stat().st_size


def read_checkpoint(path: Path, origin: Origin) -> Checkpoint:
    """The file's content; raises CheckpointUnusable if it is broken, of another format or of another training."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointUnusable(f"it cannot be read: {error}") from error
    text = metadata.get(_DOCUMENT)
    if text is None:
        raise CheckpointUnusable("it is no checkpoint of a training")
    if metadata.get(_SUM) != _sum(text, tensors):
        raise CheckpointUnusable("it is broken: its sum is not that of its content")
    document = json.loads(text)
    if document["format"] != FORMAT:
        raise CheckpointUnusable(f"it has format {document['format']}, this trainer knows {FORMAT}")
    if document["spec_digest"] != origin.spec_digest:
        raise CheckpointUnusable("it is of another spec")
    if document["dataset_digest"] != origin.dataset_digest:
        raise CheckpointUnusable("it is of another dataset")
    return Checkpoint(tensors, document)


def _sum(document: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 over document, names, types, shapes and bytes: against faults; who forges files forges the sum too."""
    total = zlib.crc32(document.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"
