"""System and CUDA shared memory. Only for a server on this machine that may open our regions."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import shared_memory
from typing import Final

import grpc

from modelyard.conformance.answers import INVALID_ARGUMENT, NOT_FOUND, OK, Answer
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.conformance.subject import Subject, arrays_of, same
from modelyard.conformance.verdicts import NotApplicable
from modelyard.oip import open_inference_pb2 as pb

SYSTEM: Final = "system_shared_memory"
CUDA: Final = "cuda_shared_memory"

_OFF: Final = frozenset({grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED})
"""How a server says that it does not share memory."""


@dataclass(frozen=True)
class Region:
    """A shared-memory object of ours, registered at the server under a name of its own."""

    probe: Probe
    name: str
    memory: shared_memory.SharedMemory

    def write(self, offset: int, data: bytes) -> None:
        """Puts bytes into it."""
        self._view()[offset : offset + len(data)] = data

    def read(self, offset: int, size: int) -> bytes:
        """Takes bytes out of it."""
        return bytes(self._view()[offset : offset + size])

    def _view(self) -> memoryview:
        view: memoryview | None = self.memory.buf
        if view is None:
            raise ValueError("the shared memory is closed")
        return view


def _register(probe: Probe, name: str, key: str, size: int, offset: int = 0) -> Answer:
    request = pb.SystemSharedMemoryRegisterRequest(name=name, key=key, offset=offset, byte_size=size)
    return probe.call("SystemSharedMemoryRegister", request)


def _unregister(probe: Probe, name: str) -> Answer:
    return probe.call("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name=name))


def _status(probe: Probe, name: str = "") -> Answer:
    return probe.call("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name=name))


@contextmanager
def _memory(size: int) -> Iterator[shared_memory.SharedMemory]:
    """A shared-memory object that is gone at the end."""
    memory = shared_memory.SharedMemory(f"conformance-{secrets.token_hex(6)}", create=True, size=size)
    try:
        yield memory
    finally:
        memory.close()
        memory.unlink()


@contextmanager
def _region(probe: Probe, size: int) -> Iterator[Region]:
    """A registered region; NotApplicable if the server shares no memory with us."""
    with _memory(size) as memory:
        region = Region(probe, memory.name.lstrip("/"), memory)
        _offered(probe)
        _register(probe, region.name, f"/{region.name}", size).ok(pb.SystemSharedMemoryRegisterResponse)
        try:
            yield region
        finally:
            with probe.notes.aside():
                _unregister(probe, region.name)


def _offered(probe: Probe) -> None:
    """NotApplicable if the server has the calls but says that it shares no memory."""
    answer = _status(probe)
    if answer.code in _OFF and SYSTEM not in probe.extensions:
        raise NotApplicable(f"shared memory is not offered ({answer})")


def _inputs_in(region: Region, subject: Subject, seed: int = 1) -> tuple[pb.ModelInferRequest, int]:
    """A request whose inputs lie in the region one after another, and where they end."""
    request, end = subject.request(seed=seed), 0
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        region.write(end, raw)
        _point(tensor, region.name, end, len(raw))
        end += len(raw)
    del request.raw_input_contents[:]
    return request, end


def _point(
    tensor: pb.ModelInferRequest.InferInputTensor | pb.ModelInferRequest.InferRequestedOutputTensor,
    name: str,
    offset: int,
    size: int,
) -> None:
    tensor.parameters["shared_memory_region"].string_param = name
    tensor.parameters["shared_memory_offset"].int64_param = offset
    tensor.parameters["shared_memory_byte_size"].int64_param = size


@check("memory.status", Level.TRITON, extension=SYSTEM)
def status(probe: Probe) -> None:
    """A registered region is listed with key, offset and size, alone and among all. (Triton.)"""
    with _region(probe, 64) as region:
        for asked in (region.name, ""):
            regions = _status(probe, asked).ok(pb.SystemSharedMemoryStatusResponse).regions
            found = region.name in regions and regions[region.name].byte_size == 64
            probe.notes.expect(found, f"{region.name} with 64 bytes", sorted(regions))


@check("memory.inputs", Level.TRITON, extension=SYSTEM)
def inputs(probe: Probe) -> None:
    """Inputs are read from a region; the answer is as for the same tensors in the message. (Triton.)"""
    with _region(probe, 1 << 20) as region:
        request, _ = _inputs_in(region, probe.subject)
        got = arrays_of(probe.infer(request).ok(pb.ModelInferResponse), probe.notes)
        direct = probe.infer(probe.subject.request(seed=1)).ok(pb.ModelInferResponse)
        expected = arrays_of(direct, probe.notes)
        probe.notes.expect(same(got, expected), f"{expected}, as without a region", got)


@check("memory.one_input", Level.TRITON, extension=SYSTEM)
def one_input(probe: Probe) -> None:
    """With one input in a region, the raw entries are those of the others. (Triton; reference model `add`.)"""
    add = probe.reference("add")
    plain = add.request(seed=1)
    with _region(probe, 1 << 20) as region:
        request, _ = _inputs_in(region, add)
        request.inputs[1].ClearField("parameters")
        request.raw_input_contents.append(plain.raw_input_contents[1])
        got = arrays_of(probe.infer(request).ok(pb.ModelInferResponse), probe.notes)
        expected = arrays_of(probe.infer(plain).ok(pb.ModelInferResponse), probe.notes)
        probe.notes.expect(same(got, expected), f"{expected}, as without a region", got)


@check("memory.output", Level.TRITON, extension=SYSTEM)
def output(probe: Probe) -> None:
    """A requested output is written to its region, and its raw entry in the answer is empty. (Triton.)"""
    _offered(probe)
    name = probe.subject.metadata.outputs[0].name
    plain = probe.subject.request(seed=1)
    plain.outputs.add(name=name)
    expected = probe.infer(plain).ok(pb.ModelInferResponse)
    if len(expected.raw_output_contents) != 1:
        raise NotApplicable("the server does not answer in raw contents")
    raw = expected.raw_output_contents[0]
    with _region(probe, 1 << 20) as region:
        request, end = _inputs_in(region, probe.subject)
        _point(request.outputs.add(name=name), region.name, end, len(raw))
        answer = probe.infer(request).ok(pb.ModelInferResponse)
        left = [len(one) for one in answer.raw_output_contents]
        probe.notes.expect(left in ([0], []), "nothing of it in the answer", f"raw entries of {left} bytes")
        written = region.read(end, len(raw))
        probe.notes.expect(written == raw, f"{raw[:24].hex()} in the region", written[:24].hex())


@check("memory.output_too_small", Level.TRITON, extension=SYSTEM)
def output_too_small(probe: Probe) -> None:
    """An output larger than its place is an error, and nothing is written beyond it. (Triton.)"""
    with _region(probe, 1 << 20) as region:
        request, end = _inputs_in(region, probe.subject)
        guard = bytes(range(64))
        region.write(end, guard)
        _point(request.outputs.add(name=probe.subject.metadata.outputs[0].name), region.name, end, 1)
        probe.infer(request).refused()
        untouched = region.read(end + 1, 63) == guard[1:]
        probe.notes.expect_so(untouched, "an error, the bytes behind untouched", "bytes written behind the place")


@check("memory.outside", Level.TRITON, extension=SYSTEM)
def outside(probe: Probe) -> None:
    """A tensor that ends outside its region is INVALID_ARGUMENT. (Triton.)"""
    size = 1 << 12
    with _region(probe, size) as region:
        request, _ = _inputs_in(region, probe.subject)
        request.inputs[0].parameters["shared_memory_offset"].int64_param = size - 1
        probe.infer(request).has_code(INVALID_ARGUMENT)


@check("memory.wrong_size", Level.TRITON, extension=SYSTEM)
def wrong_size(probe: Probe) -> None:
    """A place of another size than the tensor's is INVALID_ARGUMENT. (Triton.)"""
    with _region(probe, 1 << 12) as region:
        request, _ = _inputs_in(region, probe.subject)
        request.inputs[0].parameters["shared_memory_byte_size"].int64_param += 4
        probe.infer(request).has_code(INVALID_ARGUMENT)


@check("memory.no_size", Level.TRITON, extension=SYSTEM)
def no_size(probe: Probe) -> None:
    """A region without a size is INVALID_ARGUMENT. (Triton.)"""
    with _region(probe, 1 << 12) as region:
        request, _ = _inputs_in(region, probe.subject)
        del request.inputs[0].parameters["shared_memory_byte_size"]
        probe.infer(request).has_code(INVALID_ARGUMENT)


@check("memory.no_offset", Level.TRITON, extension=SYSTEM)
def no_offset(probe: Probe) -> None:
    """Without an offset a tensor begins where its region begins. (Triton.)"""
    with _region(probe, 1 << 12) as region:
        request, _ = _inputs_in(region, probe.subject)
        del request.inputs[0].parameters["shared_memory_offset"]
        probe.infer(request).ok(pb.ModelInferResponse)


@check("memory.unknown_region", Level.TRITON, extension=SYSTEM)
def unknown_region(probe: Probe) -> None:
    """A tensor in a region that nobody registered is NOT_FOUND or INVALID_ARGUMENT. (Triton: NOT_FOUND.)"""
    _offered(probe)
    request = probe.subject.request()
    _point(request.inputs[0], "conformance-no-such-region", 0, len(request.raw_input_contents[0]))
    del request.raw_input_contents[:]
    probe.infer(request).has_code(NOT_FOUND, INVALID_ARGUMENT)


@check("memory.status_unknown", Level.TRITON, extension=SYSTEM)
def status_unknown(probe: Probe) -> None:
    """The status of an unknown region is NOT_FOUND. (Triton.)"""
    _offered(probe)
    _status(probe, "conformance-no-such-region").has_code(NOT_FOUND)


@check("memory.twice", Level.TRITON, extension=SYSTEM)
def twice(probe: Probe) -> None:
    """A second region under the same name is ALREADY_EXISTS. (Triton.)"""
    with _region(probe, 64) as region:
        answer = _register(probe, region.name, f"/{region.name}", 64)
        answer.has_code(grpc.StatusCode.ALREADY_EXISTS)


@check("memory.no_object", Level.TRITON, extension=SYSTEM)
def no_object(probe: Probe) -> None:
    """Registering an object that does not exist is an error. (Triton: INTERNAL.)"""
    _offered(probe)
    _register(probe, "conformance-none", "/conformance-no-such-object", 64).refused()


@check("memory.too_large", Level.TRITON, extension=SYSTEM)
def too_large(probe: Probe) -> None:
    """Registering more bytes than the object has is an error, also by way of the offset. (Triton: INTERNAL.)"""
    _offered(probe)
    with _memory(4096) as memory:
        key = "/" + memory.name.lstrip("/")
        _register(probe, "conformance-large", key, 1 << 20).refused()
        _register(probe, "conformance-large", key, 4096, offset=4000).refused()


@check("memory.unregister", Level.TRITON, extension=SYSTEM)
def unregister(probe: Probe) -> None:
    """An unregistered region is gone from the status and refused in requests. (Triton.)"""
    with _region(probe, 1 << 12) as region:
        request, _ = _inputs_in(region, probe.subject)
        _unregister(probe, region.name).ok(pb.SystemSharedMemoryUnregisterResponse)
        probe.infer(request).has_code(NOT_FOUND, INVALID_ARGUMENT)
        left = _status(probe).ok(pb.SystemSharedMemoryStatusResponse).regions
        probe.notes.expect(region.name not in left, f"no {region.name}", sorted(left))


@check("memory.unregister_unknown", Level.TRITON, extension=SYSTEM)
def unregister_unknown(probe: Probe) -> None:
    """Unregistering an unknown region is OK. (Triton.)"""
    _offered(probe)
    _unregister(probe, "conformance-no-such-region").ok(pb.SystemSharedMemoryUnregisterResponse)


@check("memory.cuda_status", Level.TRITON, extension=CUDA)
def cuda_status(probe: Probe) -> None:
    """CudaSharedMemoryStatus lists regions, also on a machine without CUDA. (Triton.)"""
    answer = probe.call("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest())
    answer.ok(pb.CudaSharedMemoryStatusResponse)


@check("memory.cuda_bad_handle", Level.TRITON, extension=CUDA)
def cuda_bad_handle(probe: Probe) -> None:
    """Registering a handle that is none is an error. (Triton: INVALID_ARGUMENT.)"""
    request = pb.CudaSharedMemoryRegisterRequest(name="conformance", raw_handle=b"x" * 64, byte_size=64)
    answer = probe.call("CudaSharedMemoryRegister", request)
    if answer.code is not OK:
        cuda_status(probe)  # a server without the calls refuses everything: that is no verdict
        probe.call("CudaSharedMemoryRegister", request)
    answer.refused()
