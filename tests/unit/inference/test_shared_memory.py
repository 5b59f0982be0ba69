"""Regions of shared memory: what may be registered, and what is read and written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.core.errors import (
    AlreadyExists,
    InvalidFields,
    ModelyardError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from modelyard.inference.protocol.shared_memory import NO_REGIONS, Place, SharedMemory, read_place
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.errors import TensorError

LIMIT = 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Stands for /dev/shm, with one object of 64 bytes in it."""
    folder = tmp_path / "shm"
    folder.mkdir()
    (folder / "object").write_bytes(bytes(range(64)))
    return folder


@pytest.fixture
def memory(folder: Path) -> SharedMemory:
    return SharedMemory(most_bytes=LIMIT, folder=folder)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_bytes_are_read_and_written_inside_the_region(memory: SharedMemory, folder: Path) -> None:
    memory.register("t", "r", "/object", 8, 16)
    region = memory.of("t").find("r")
    assert region.read(Place("r", 4, 3)) == bytes([12, 13, 14])
    region.write(Place("r", 12, 4), b"abcd")
    assert (folder / "object").read_bytes()[18:26] == bytes([18, 19]) + b"abcd" + bytes([24, 25])


@pytest.mark.parametrize(
    "key", ["", "/", "//object", "../shm/object", "/../etc/passwd", ".", "..", "a/b", "/object/", "x\0y", "x" * 256]
)
def test_a_key_is_one_name_and_leads_nowhere_else(key: str, memory: SharedMemory) -> None:
    with pytest.raises(InvalidFields) as raised:
        memory.register("t", "r", key, 0, 1)
    assert raised.value.violations[0].field == "key"


def a_link(folder: Path) -> None:
    (folder / "secret").symlink_to("/etc/hostname")


def a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "secret")


def a_folder(folder: Path) -> None:
    (folder / "secret").mkdir()


def read_only(folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(8))
    (folder / "secret").chmod(0o000)
    if os.geteuid() == 0:
        (folder / "secret").unlink()  # root may open anything: then it is simply not there


@pytest.mark.parametrize("make", [a_link, a_pipe, a_folder, read_only])
def test_what_is_no_shared_memory_object_is_refused_and_closed(
    make: Callable[[Path], None], memory: SharedMemory, folder: Path
) -> None:
    make(folder)
    before = open_descriptors()
    with pytest.raises(InvalidFields) as raised:
        memory.register("t", "r", "secret", 0, 1)
    assert raised.value.violations[0].field == "key"
    assert open_descriptors() == before


@pytest.mark.parametrize(("offset", "byte_size"), [(0, 0), (0, 65), (64, 1), (60, 8), (2**64 - 1, 2), (2**63, 2**63)])
def test_a_region_lies_inside_its_object(offset: int, byte_size: int, memory: SharedMemory) -> None:
    with pytest.raises(InvalidFields):
        memory.register("t", "r", "object", offset, byte_size)
    assert memory.of("t") is NO_REGIONS


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_region_has_a_name_of_sensible_length(name: str, memory: SharedMemory) -> None:
    with pytest.raises(InvalidFields):
        memory.register("t", name, "object", 0, 1)


def test_a_name_is_taken_once_in_each_tenant(memory: SharedMemory, folder: Path) -> None:
    memory.register("t", "r", "object", 0, 8)
    with pytest.raises(AlreadyExists):
        memory.register("t", "r", "object", 8, 8)
    (folder / "other").write_bytes(bytes(8))
    memory.register("u", "r", "other", 0, 8)
    assert memory.of("u").find("r").key == "other"
    assert memory.of("t").find("r").key == "object"


def test_a_tenant_neither_sees_nor_opens_nor_forgets_what_is_another_s(memory: SharedMemory) -> None:
    memory.register("t", "r", "object", 0, 8)
    with pytest.raises(NotFound):
        memory.of("u").find("r")
    with pytest.raises(PermissionDenied):
        memory.register("u", "mine", "/object", 8, 8)
    memory.unregister("u")
    memory.unregister("u", "r")
    assert memory.of("t").find("r").byte_size == 8
    memory.unregister("t", "r")
    memory.register("u", "mine", "/object", 8, 8)


def test_forgetting_closes_the_object_when_nobody_uses_it_any_more(memory: SharedMemory) -> None:
    before = open_descriptors()
    for number in range(3):
        memory.register("t", f"r{number}", "object", 0, 8)
    used = memory.of("t").find("r1")
    memory.unregister("t", "unknown")
    memory.unregister("t")
    assert memory.of("t") is NO_REGIONS
    assert open_descriptors() == before + 1
    assert used.read(Place("r1", 0, 2)) == bytes([0, 1])
    del used
    assert open_descriptors() == before


def test_there_is_room_for_so_many_regions_and_no_more(memory: SharedMemory) -> None:
    for number in range(256):
        memory.register("t", str(number), "object", 0, 1)
    with pytest.raises(ResourceExhausted):
        memory.register("t", "more", "object", 0, 1)
    memory.unregister("t")


@pytest.mark.parametrize(("offset", "byte_size"), [(0, 17), (16, 1), (9, 8), (2**63 - 1, 2**63 - 1)])
def test_a_tensor_lies_inside_its_region(offset: int, byte_size: int, memory: SharedMemory) -> None:
    memory.register("t", "r", "object", 0, 16)
    region = memory.of("t").find("r")
    with pytest.raises(TensorError, match="inside the region"):
        region.read(Place("r", offset, byte_size))
    with pytest.raises(TensorError, match="inside the region"):
        region.write(Place("r", offset, byte_size), b"")


def test_a_tensor_is_no_larger_than_a_request_may_be(memory: SharedMemory, folder: Path) -> None:
    with (folder / "huge").open("wb") as file:
        file.truncate(2**40)  # costs its owner nothing
    memory.register("t", "r", "huge", 0, 2**40)
    with pytest.raises(TensorError, match="at most 64 bytes"):
        memory.of("t").find("r").read(Place("r", 0, 2**40))


def test_what_does_not_fit_into_its_place_is_not_written(memory: SharedMemory, folder: Path) -> None:
    memory.register("t", "r", "object", 0, 16)
    with pytest.raises(TensorError, match="should be at least 5 bytes"):
        memory.of("t").find("r").write(Place("r", 0, 4), b"abcde")
    assert (folder / "object").read_bytes() == bytes(range(64))


def test_an_object_that_its_owner_has_shrunk_or_removed_is_no_danger(memory: SharedMemory, folder: Path) -> None:
    memory.register("t", "r", "object", 0, 64)
    region = memory.of("t").find("r")
    os.truncate(folder / "object", 10)
    for attempt in (lambda: region.read(Place("r", 8, 8)), lambda: region.write(Place("r", 8, 8), b"12345678")):
        with pytest.raises(TensorError, match="smaller than when it was registered"):
            attempt()
    assert (folder / "object").stat().st_size == 10
    (folder / "object").unlink()
    assert region.read(Place("r", 0, 2)) == bytes([0, 1])


def parameters(**values: int | str) -> dict[str, pb.InferParameter]:
    return {
        f"shared_memory_{name}": pb.InferParameter(int64_param=value)
        if isinstance(value, int)
        else pb.InferParameter(string_param=value)
        for name, value in values.items()
    }


def test_a_place_is_read_from_its_parameters() -> None:
    assert read_place(parameters(region="r", byte_size=8), "p") == Place("r", 0, 8)
    assert read_place(parameters(region="r", byte_size=8, offset=4), "p") == Place("r", 4, 8)
    assert read_place({"other": pb.InferParameter(bool_param=True)}, "p") is None


@pytest.mark.parametrize(
    "given",
    [
        parameters(region="r"),
        parameters(byte_size=8),
        parameters(offset=8),
        parameters(region="r", offset=8),
        parameters(region=1, byte_size=8),
        parameters(region="r", byte_size="8"),
        parameters(region="r", byte_size=-1),
        parameters(region="r", byte_size=8, offset=-1),
        parameters(region="r", byte_size=8, offset="0"),
        {**parameters(region="r"), "shared_memory_byte_size": pb.InferParameter(uint64_param=2**63)},
    ],
)
def test_a_place_that_is_not_whole_or_of_other_types_is_refused(given: dict[str, pb.InferParameter]) -> None:
    with pytest.raises(ModelyardError) as raised:
        read_place(given, "inputs[0].parameters")
    assert isinstance(raised.value, InvalidFields)
    assert raised.value.violations[0].field == "inputs[0].parameters"
