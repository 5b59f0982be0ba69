"""Endless streams hear of the end before the grace runs, and a hurry ends that."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.core import channels, errors, serving
from modelyard.core.settings import ServiceSettings
from modelyard.v1 import training_job_pb2, training_service_pb2, training_service_pb2_grpc
from support.identity import Identity


class Patient(training_service_pb2_grpc.TrainingServiceServicer):
    """Answers nobody."""

    async def GetTrainingJob(self, request: Any, context: Any) -> Any:
        await asyncio.Event().wait()


class Endless(training_service_pb2_grpc.TrainingServiceServicer):
    """Streams one event, then nothing until the service stops."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping

    async def WatchTrainingJob(self, request: Any, context: Any) -> Any:
        yield training_job_pb2.TrainingJobEvent(sequence=1)
        await self._stopping.wait()
        raise errors.Unavailable("stopping", retry_after=1)


async def test_an_endless_stream_ends_when_the_service_stops_not_when_the_grace_is_over(identity: Identity) -> None:
    stopping = asyncio.Event()

    def register(server: grpc.aio.Server) -> None:
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(Endless(stopping), server)

    service = serving.Service(register, ["modelyard.v1.TrainingService"], stopping=stopping)
    settings = ServiceSettings(token_keys_file=identity.keys_file, drain_delay_s=0, shutdown_grace_s=600)
    running = await serving.start(service, settings)
    async with channels.aio_channel(running.address, channels.fixed_token(identity.token())) as channel:
        stub = training_service_pb2_grpc.TrainingServiceStub(channel)
        events = stub.WatchTrainingJob(training_service_pb2.WatchTrainingJobRequest(name="trainingJobs/x"))
        assert (await events.read()).sequence == 1
        # The test's own time limit is far below the grace: it passes only if the stream ended by itself.
        stop = asyncio.create_task(running.stop())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await events.read()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        await stop


async def test_an_open_health_watch_does_not_hold_the_service_up(identity: Identity) -> None:
    service = serving.Service(lambda server: None, ["modelyard.v1.TrainingService"])
    settings = ServiceSettings(token_keys_file=identity.keys_file, drain_delay_s=0, shutdown_grace_s=600)
    running = await serving.start(service, settings)
    async with channels.aio_channel(running.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stop = asyncio.create_task(running.stop())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await stop


async def test_a_hurry_during_the_grace_ends_it(identity: Identity) -> None:
    def register(server: grpc.aio.Server) -> None:
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(Patient(), server)

    service = serving.Service(register, ["modelyard.v1.TrainingService"])
    settings = ServiceSettings(token_keys_file=identity.keys_file, drain_delay_s=0, shutdown_grace_s=600)
    running = await serving.start(service, settings)
    async with channels.aio_channel(running.address, channels.fixed_token(identity.token())) as channel:
        stub = training_service_pb2_grpc.TrainingServiceStub(channel)
        call = asyncio.ensure_future(stub.GetTrainingJob(training_service_pb2.GetTrainingJobRequest(name="x")))
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING  # so the call is there too
        hurry = asyncio.Event()
        stop = asyncio.create_task(running.stop(hurry))
        await service.stopping.wait()  # stage two
        assert not call.done()
        hurry.set()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await stop
