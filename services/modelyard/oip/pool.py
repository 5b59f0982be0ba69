"""A descriptor pool for the Open Inference Protocol alone.

Stock clients (tritonclient) define the same message names, from files of other names, in protobuf's default pool, and
one pool refuses to hold both. Ours is a pool of its own, so that both can be imported into one process.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool


def _load() -> FileDescriptorProto:
    """The one file of the protocol, as `tools/generate_protos.py` compiled it."""
    compiled = FileDescriptorSet.FromString((files(__package__) / "descriptors.binpb").read_bytes())
    (file,) = compiled.file
    return file


_FILE: Final = _load()
POOL: Final = DescriptorPool()
"""Holds the protocol's descriptors and nothing else."""
POOL.AddSerializedFile(_FILE.SerializeToString())

DESCRIPTOR: Final[FileDescriptor] = POOL.FindFileByName(_FILE.name)
"""The protocol's file."""


def pool_with(others: Iterable[FileDescriptor]) -> DescriptorPool:
    """A new pool with the protocol and `others`, their imports included: what a server's reflection reads from."""
    pool = DescriptorPool()
    pool.AddSerializedFile(DESCRIPTOR.serialized_pb)
    added = {_FILE.name}
    for file in others:
        _add(pool, file, added)
    return pool


def _add(pool: DescriptorPool, file: FileDescriptor, added: set[str]) -> None:
    """Adds a file behind its imports, each once."""
    if file.name in added:
        return
    added.add(file.name)
    for imported in file.dependencies:
        _add(pool, imported, added)
    pool.AddSerializedFile(file.serialized_pb)
