"""Our file of the protocol against the one inside the stock Triton client, and both in one process."""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2

from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip import pool, service
from support.foreign_venv import triton_python

Message = descriptor_pb2.DescriptorProto

PARTIAL = {
    f"inference.{name}"
    for name in (
        "ModelConfig", "ModelInput", "ModelOutput", "ModelInstanceGroup", "ModelDynamicBatching", "ModelQueuePolicy",
    )
}  # fmt: skip
"""Of a configuration we declare the fields that a pod fills; what we declare must be right."""

DUMP = """
import sys
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2
files = descriptor_pb2.FileDescriptorSet()
for module in (model_config_pb2, service_pb2):
    module.DESCRIPTOR.CopyToProto(files.file.add())
sys.stdout.buffer.write(files.SerializeToString())
"""


@pytest.fixture(scope="module")
def theirs() -> descriptor_pb2.FileDescriptorSet:
    """The stock client's own descriptors."""
    dumped = subprocess.run([triton_python(), "-c", DUMP], capture_output=True, check=True)
    return descriptor_pb2.FileDescriptorSet.FromString(dumped.stdout)


@pytest.fixture(scope="module")
def ours() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    pool.DESCRIPTOR.CopyToProto(file)
    return file


def walk(messages: list[Message], prefix: str = "inference") -> Iterator[tuple[str, Message]]:
    """Every message with its full name, nested ones too."""
    for message in messages:
        name = f"{prefix}.{message.name}"
        yield name, message
        yield from walk(list(message.nested_type), name)


def fields(message: Message) -> dict[int, tuple[str, int, int, str, bool]]:
    """What decides the wire and the JSON of a message: number, name, label, type, type name, in a oneof or not."""
    return {
        field.number: (field.name, field.label, field.type, field.type_name, field.HasField("oneof_index"))
        for field in message.field
    }


def test_every_message_is_on_the_wire_what_the_stock_client_has(
    ours: descriptor_pb2.FileDescriptorProto, theirs: descriptor_pb2.FileDescriptorSet
) -> None:
    stock = dict(walk([message for file in theirs.file for message in file.message_type]))
    checked = 0
    for name, message in walk(list(ours.message_type)):
        expected = fields(stock[name])
        if name in PARTIAL:
            expected = {number: field for number, field in expected.items() if number in fields(message)}
        assert fields(message) == expected, name
        checked += 1
    assert checked >= 80


def test_no_message_of_the_service_is_missing(
    ours: descriptor_pb2.FileDescriptorProto, theirs: descriptor_pb2.FileDescriptorSet
) -> None:
    stock = {name for name, _ in walk(list(theirs.file[1].message_type))}
    assert stock <= {name for name, _ in walk(list(ours.message_type))}


def test_enums_have_the_stock_numbers(
    ours: descriptor_pb2.FileDescriptorProto, theirs: descriptor_pb2.FileDescriptorSet
) -> None:
    def numbers(file: descriptor_pb2.FileDescriptorProto) -> dict[str, dict[str, int]]:
        nested = [enum for _, message in walk(list(file.message_type)) for enum in message.enum_type]
        return {enum.name: {value.name: value.number for value in enum.value} for enum in (*file.enum_type, *nested)}

    config = numbers(theirs.file[0])
    assert numbers(ours)["DataType"] == config["DataType"]
    assert pb.ModelInstanceGroup.Kind.items() == [("KIND_AUTO", 0), ("KIND_GPU", 1), ("KIND_CPU", 2), ("KIND_MODEL", 3)]


def test_every_call_takes_and_gives_what_the_stock_client_expects(
    ours: descriptor_pb2.FileDescriptorProto, theirs: descriptor_pb2.FileDescriptorSet
) -> None:
    stock = {method.name: method for method in theirs.file[1].service[0].method}
    for method in ours.service[0].method:
        expected = stock[method.name]
        assert (method.input_type, method.output_type) == (expected.input_type, expected.output_type)
        assert (method.client_streaming, method.server_streaming) == (
            expected.client_streaming,
            expected.server_streaming,
        )


def test_ours_and_a_foreign_file_of_the_same_messages_live_in_one_process(
    theirs: descriptor_pb2.FileDescriptorSet,
) -> None:
    # What importing tritonclient does: its files, with their conflicting names, into the default pool.
    default = descriptor_pool.Default()
    for file in theirs.file:
        default.AddSerializedFile(file.SerializeToString())
    foreign = default.FindMessageTypeByName("inference.ModelInferRequest")
    request = pb.ModelInferRequest(model_name="diabetes", raw_input_contents=[b"\0"])
    assert foreign is not pb.ModelInferRequest.DESCRIPTOR
    assert pb.ModelInferRequest.FromString(request.SerializeToString()) == request


def test_the_trap_is_real_one_pool_refuses_both(theirs: descriptor_pb2.FileDescriptorSet) -> None:
    shared = DescriptorPool()
    for file in theirs.file:
        shared.AddSerializedFile(file.SerializeToString())
    with pytest.raises(TypeError):
        shared.AddSerializedFile(pool.DESCRIPTOR.serialized_pb)


def test_the_typed_declarations_name_every_call_and_no_other() -> None:
    assert set(service.AioInferenceStub.__annotations__) == set(service.METHODS)
    assert set(service.InferenceStub.__annotations__) == set(service.METHODS)
    declared = {name for name, _ in inspect.getmembers(service.InferenceServicer, inspect.isfunction)}
    assert {name for name in declared if name[0].isupper()} == set(service.METHODS)
    for method in pool.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        name, request, response = method.name, f"pb.{method.input_type.name}", f"pb.{method.output_type.name}"
        kind = "Stream" if method.client_streaming else "Call"
        assert method.client_streaming == method.server_streaming
        assert service.AioInferenceStub.__annotations__[name] == f"Aio{kind}[{request}, {response}]"
        assert service.InferenceStub.__annotations__[name] == f"{kind}[{request}, {response}]"
        signature = inspect.signature(getattr(service.InferenceServicer, name))
        (given,) = [p.annotation for p in signature.parameters.values() if p.name not in ("self", "context")]
        assert given == (f"AsyncIterator[{request}]" if method.client_streaming else request)
        answered = f"AsyncIterator[{response}]" if method.server_streaming else response
        assert signature.return_annotation == answered


def test_every_call_of_the_stock_client_is_declared(
    ours: descriptor_pb2.FileDescriptorProto, theirs: descriptor_pb2.FileDescriptorSet
) -> None:
    stock = {method.name for method in theirs.file[1].service[0].method}
    assert {method.name for method in ours.service[0].method} == stock


def test_a_blocking_stub_has_every_call() -> None:
    with grpc.insecure_channel("localhost:1") as channel:
        stub = service.InferenceStub(channel)
        assert all(callable(getattr(stub, name)) for name in service.METHODS)


def test_a_reflection_pool_holds_the_protocol_and_other_services() -> None:
    shared = pool.pool_with([health_pb2.DESCRIPTOR])  # type: ignore[list-item]  # the stubs name protobuf's inner class
    assert shared.FindServiceByName("grpc.health.v1.Health").methods_by_name["Watch"].server_streaming
    assert "ModelInfer" in shared.FindServiceByName(service.SERVICE_NAME).methods_by_name
