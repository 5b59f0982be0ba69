"""Every method of every service has its place in the permission table; nothing else has."""

from __future__ import annotations

import importlib
import pkgutil

import grpc
import pytest
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import modelyard.v1
from modelyard.core import channels
from modelyard.core.permissions import METHOD_TABLE, ROLE_PERMISSIONS, Access, Permission
from modelyard.core.serving import Service
from modelyard.oip.pool import DESCRIPTOR as INFERENCE
from modelyard.v1 import access_service_pb2
from support.grpc_server import serve
from support.identity import Identity

# Answered by no server of ours yet, but what a newer reflection library would register.
NOT_YET_SERVED = {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}


def all_files() -> list[FileDescriptor]:
    modules = [
        importlib.import_module(f"modelyard.v1.{module.name}")
        for module in pkgutil.iter_modules(modelyard.v1.__path__)
        if module.name.endswith("_pb2")
    ]
    return [*(module.DESCRIPTOR for module in modules), INFERENCE, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR]


def all_methods() -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for file in all_files()
        for service in file.services_by_name.values()
        for method in service.methods
    }


def test_the_table_names_every_method_and_no_other() -> None:
    assert set(METHOD_TABLE) - NOT_YET_SERVED == all_methods()


def test_only_probes_and_reflection_are_public() -> None:
    public = {method for method, needed in METHOD_TABLE.items() if needed is Access.PUBLIC}
    assert {method.split("/")[1] for method in public} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "grpc.reflection.v1.ServerReflection",
        "inference.GRPCInferenceService",
    }
    assert {method for method in public if "inference" in method} == {
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }


def test_every_permission_is_needed_somewhere_and_given_by_some_role() -> None:
    needed = {permission for permission in METHOD_TABLE.values() if isinstance(permission, Permission)}
    assert needed | {Permission.TENANTS_ALL} == set(Permission)
    assert frozenset().union(*ROLE_PERMISSIONS.values()) == set(Permission)


def test_every_role_of_the_api_has_permissions() -> None:
    roles = {name.removeprefix("ROLE_").lower() for name, number in access_service_pb2.Role.items() if number}
    assert roles == set(ROLE_PERMISSIONS)


@pytest.mark.parametrize("method", sorted(all_methods()))
async def test_no_method_but_the_public_ones_answers_a_caller_without_a_token(identity: Identity, method: str) -> None:
    """Each method is registered with a handler that would say yes; the interceptor alone stands before it."""

    class YesToAll(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            async def yes(request: bytes, context: object) -> bytes:
                return b""

            return grpc.unary_unary_rpc_method_handler(yes, lambda data: access_service_pb2.GetCallerRequest(), bytes)

    service = Service(lambda server: server.add_generic_rpc_handlers((YesToAll(),)), [], serve_health=False)
    async with serve(service, identity) as address, channels.aio_channel(address) as channel:
        call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        if METHOD_TABLE[method] is Access.PUBLIC:
            if "reflection" not in method:  # the server brings its own reflection
                assert await call(b"") == b""
            return
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"")
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        stranger = channels.bearer(identity.token("no-such-role"))
        if METHOD_TABLE[method] is Access.ANY_TOKEN:
            assert await call(b"", metadata=stranger) == b""
            return
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"", metadata=stranger)
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
