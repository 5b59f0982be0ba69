"""Tensors in system shared memory: the regions that clients have registered, and their bytes.

A region is never mapped. Its bytes are copied by `pread` and `pwrite`: a client that shrinks a mapped object kills
whoever touches the lost pages (SIGBUS), while a short read is an error like any other. The copy also means that what
was checked is what is computed with: the client cannot change it in between.

Names belong to the caller's tenant. Objects belong to the machine: whoever may use shared memory here can ask for any
object that the operating system lets this process open, unless another tenant has a region in it.
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.core.errors import AlreadyExists, InvalidFields, NotFound, PermissionDenied, ResourceExhausted
from modelyard.core.names import shorten
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.errors import TensorError

FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where shm_open(3) looks on Linux; nothing is created there
REGION: Final = "shared_memory_region"
BYTE_SIZE: Final = "shared_memory_byte_size"
OFFSET: Final = "shared_memory_offset"
PARAMETERS: Final = (REGION, BYTE_SIZE, OFFSET)
"""Of a tensor that is in shared memory."""

_MOST_REGIONS = 256
"""In one pod; each holds a file descriptor."""
_LONGEST_NAME = 200
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is."""

    region: str
    offset: int
    byte_size: int


class Region:
    """A part of a shared-memory object. The object stays open as long as anybody holds this."""

    def __init__(self, name: str, key: str, offset: int, byte_size: int, *, descriptor: int, most_bytes: int) -> None:
        """`descriptor`: of the object, which this closes. `most_bytes`: of one tensor."""
        self.name = name
        self.key = key
        self.offset = offset
        self.byte_size = byte_size
        self._most_bytes = most_bytes
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def read(self, place: Place) -> bytes:
        """The bytes at `place`.

        Raises TensorError if it is not in the region, too large, or no longer in the object.
        """
        self._check(place)
        raw = os.pread(self._descriptor, place.byte_size, self.offset + place.offset)
        if len(raw) != place.byte_size:
            raise self._shrunk()
        return raw

    def write(self, place: Place, raw: bytes) -> None:
        """Puts `raw` at `place`.

        Raises TensorError as `read` does, and if it is too much for the place or may not be written.
        """
        self._check(place)
        if len(raw) > place.byte_size:
            raise TensorError(
                f"shared memory size specified with the request ({place.byte_size} bytes) "
                f"should be at least {len(raw)} bytes to hold the results"
            )
        # A write behind the end would let the object grow again. That the client shrinks it right now does no harm.
        if os.fstat(self._descriptor).st_size < self.offset + place.offset + len(raw):
            raise self._shrunk()
        try:
            written = os.pwrite(self._descriptor, raw, self.offset + place.offset)
        except OSError as error:  # sealed against writing, or no memory left
            text = f"the shared memory region {self.name!r} cannot be written: {error.strerror}"
            raise TensorError(text) from error
        if written != len(raw):
            raise self._shrunk()

    def _check(self, place: Place) -> None:
        if place.offset + place.byte_size > self.byte_size:
            raise TensorError(
                f"expected a place inside the region {self.name!r} of {self.byte_size} bytes; "
                f"got {place.byte_size} bytes from byte {place.offset}"
            )
        if place.byte_size > self._most_bytes:
            raise TensorError(f"expected at most {self._most_bytes} bytes in one tensor; got {place.byte_size}")

    def _shrunk(self) -> TensorError:
        return TensorError(f"the object behind the region {self.name!r} is smaller than when it was registered")


class TenantRegions:
    """The regions of one tenant, by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Region] = {}

    def find(self, name: str) -> Region:
        """The region of this name, or raises NotFound."""
        region = self.by_name.get(name)
        if region is None:
            raise unknown_region(name)
        return region


NO_REGIONS: Final = TenantRegions()
"""Of a tenant that has registered none, or of a pod without shared memory."""


class SharedMemory:
    """Every registered region of the pod. Changed in the event loop; regions are read and written in any thread."""

    def __init__(self, *, most_bytes: int, folder: Path = FOLDER) -> None:
        """`most_bytes`: of one tensor. A region may be larger: only what is read costs memory."""
        self._folder = folder
        self._most_bytes = most_bytes
        self._tenants: dict[str, TenantRegions] = {}

    def of(self, tenant: str) -> TenantRegions:
        """What this tenant has registered."""
        return self._tenants.get(tenant, NO_REGIONS)

    def register(self, tenant: str, name: str, key: str, offset: int, byte_size: int) -> None:
        """Makes a part of the object `key` known as `name`.

        Raises InvalidFields, AlreadyExists for a known name, PermissionDenied for an object that another tenant uses,
        and ResourceExhausted if there are too many regions.
        """
        self._check(tenant, name, key)
        descriptor = _open(self._folder, key)
        try:
            _check_size(descriptor, offset, byte_size)
        except BaseException:
            os.close(descriptor)
            raise
        own = self._tenants.setdefault(tenant, TenantRegions())
        own.by_name[name] = Region(name, key, offset, byte_size, descriptor=descriptor, most_bytes=self._most_bytes)

    def unregister(self, tenant: str, name: str = "") -> None:
        """Forgets a region of the tenant, or all of them. Requests that use one already go on with it."""
        own = self._tenants.get(tenant)
        if own is None:
            return
        if name:
            own.by_name.pop(name, None)
        if not name or not own.by_name:
            del self._tenants[tenant]

    def _check(self, tenant: str, name: str, key: str) -> None:
        if not 1 <= len(name) <= _LONGEST_NAME:
            raise InvalidFields.one("name", f"expected 1 to {_LONGEST_NAME} characters; got {len(name)}")
        if name in self.of(tenant).by_name:
            raise AlreadyExists(f"shared memory region {name!r} already in manager")
        if sum(len(regions.by_name) for regions in self._tenants.values()) >= _MOST_REGIONS:
            raise ResourceExhausted(f"{_MOST_REGIONS} shared memory regions are registered, the most allowed")
        for other, regions in self._tenants.items():
            if other != tenant and any(_same(region.key, key) for region in regions.by_name.values()):
                raise PermissionDenied("the shared memory object is in use by another tenant")


def unknown_region(name: str) -> NotFound:
    """For a region that nobody has registered, in the protocol's usual words."""
    return NotFound(f"Unable to find shared memory region: '{shorten(name)}'", metadata={"resource": shorten(name)})


def read_place(parameters: Mapping[str, pb.InferParameter], path: str) -> Place | None:
    """Where the tensor with these parameters is; None if it is in the message. Raises InvalidFields for `path`."""
    if not any(name in parameters for name in PARAMETERS):
        return None
    region = parameters[REGION].string_param if REGION in parameters else ""
    if not region or BYTE_SIZE not in parameters:
        raise InvalidFields.one(path, f"expected {REGION} (text) together with {BYTE_SIZE}")
    byte_size = _size(parameters, BYTE_SIZE, path)
    return Place(region, _size(parameters, OFFSET, path) if OFFSET in parameters else 0, byte_size)


def _size(parameters: Mapping[str, pb.InferParameter], name: str, path: str) -> int:
    parameter = parameters[name]
    if parameter.WhichOneof("parameter_choice") != "int64_param" or parameter.int64_param < 0:
        raise InvalidFields.one(path, f"expected {name} as an int64, 0 or more")
    return parameter.int64_param


def _open(folder: Path, key: str) -> int:
    """The object of this key, opened for reading and writing."""
    name = key.removeprefix("/")
    # One name in one folder, as shm_open(3) demands: nothing that could lead anywhere else.
    if not name or "/" in name or "\0" in name or name in (".", "..") or len(os.fsencode(name)) > 255:
        raise InvalidFields.one("key", f"expected the name of a shared memory object; got {shorten(key)!r}")
    try:
        descriptor = os.open(folder / name, _FLAGS)
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
        text = f"Unable to open shared memory region: '{shorten(key)}': {reason}"
        raise InvalidFields.one("key", text) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidFields.one("key", f"expected a shared memory object; {shorten(key)!r} is something else")
    return descriptor


def _check_size(descriptor: int, offset: int, byte_size: int) -> None:
    size = os.fstat(descriptor).st_size
    if not byte_size or offset + byte_size > size:
        text = f"expected 1 byte or more inside the object of {size} bytes; got {byte_size} from byte {offset}"
        raise InvalidFields.one("byte_size", text)


def _same(key: str, other: str) -> bool:
    return key.removeprefix("/") == other.removeprefix("/")
