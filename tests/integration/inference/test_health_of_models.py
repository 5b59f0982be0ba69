"""Health per model, by the model's id: what a client that balances over pods can go by."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.core.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING
from modelyard.oip import open_inference_pb2 as pb
from support import graphs
from support.inference_pod import Pod
from support.served_registry import ServedRegistry


class ModelWatch:
    """An open health stream of one model."""

    def __init__(self, pod: Pod, model: str) -> None:
        self._answers = aiter(health_pb2_grpc.HealthStub(pod.channel).Watch(request(model)))

    async def until(self, wanted: int) -> list[int]:
        """What is told up to the first time that it is this."""
        told: list[int] = []
        while wanted not in told:
            told.append((await anext(self._answers)).status)
        return told


def request(model: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=model)


async def checked(pod: Pod, model: str) -> int | grpc.StatusCode:
    try:
        return int((await health_pb2_grpc.HealthStub(pod.channel).Check(request(model))).status)
    except grpc.aio.AioRpcError as error:
        return error.code()


@pytest.fixture
async def watch(pod: Pod) -> ModelWatch:
    """A stream that was open before there was a model."""
    watch = ModelWatch(pod, "double")
    assert await watch.until(SERVICE_UNKNOWN) == [SERVICE_UNKNOWN]
    return watch


async def test_a_model_is_unknown_then_loading_then_serving(
    registry: ServedRegistry, pod: Pod, watch: ModelWatch
) -> None:
    assert await checked(pod, "double") is grpc.StatusCode.NOT_FOUND
    registry.add("double", graphs.scale(2))
    # Whether a watcher sees it loading depends on how fast that is; it never hears anything else.
    assert set((await watch.until(SERVING))[:-1]) <= {NOT_SERVING}
    assert await checked(pod, "double") == SERVING


async def test_a_model_whose_only_version_is_broken_does_not_serve_until_a_good_one_comes(
    registry: ServedRegistry, pod: Pod, watch: ModelWatch
) -> None:
    registry.add("double", b"no graph")
    await pod.until_state("double", 1, "UNAVAILABLE")
    assert await watch.until(NOT_SERVING) == [NOT_SERVING]
    registry.add("double", graphs.scale(2))
    assert await watch.until(SERVING) == [SERVING]


async def test_a_broken_new_version_changes_nothing(registry: ServedRegistry, pod: Pod, watch: ModelWatch) -> None:
    registry.add("double", graphs.scale(2))
    await watch.until(SERVING)
    registry.add("double", b"no graph")
    await pod.until_state("double", 2, "UNAVAILABLE")
    registry.add("double", graphs.scale(3))
    await pod.until_ready("double", "3")
    registry.point("double", "live", None)
    # The next thing that the stream tells is the end: there was nothing in between.
    told = await watch.until(SERVICE_UNKNOWN)
    assert set(told[:-1]) <= {NOT_SERVING}


async def test_a_model_that_is_unloaded_by_request_does_not_serve_until_it_is_loaded_again(
    registry: ServedRegistry, pod: Pod, watch: ModelWatch
) -> None:
    registry.add("double", graphs.scale(2))
    await watch.until(SERVING)
    await pod.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="double"))
    assert await watch.until(NOT_SERVING) == [NOT_SERVING]
    assert await checked(pod, "double") == NOT_SERVING
    await pod.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="double"))
    assert await watch.until(SERVING) == [SERVING]


async def test_a_model_that_nothing_is_wanted_of_any_more_is_unknown(
    registry: ServedRegistry, pod: Pod, watch: ModelWatch
) -> None:
    registry.add("double", graphs.scale(2))
    await watch.until(SERVING)
    registry.point("double", "live", None)
    await watch.until(SERVICE_UNKNOWN)
    assert await checked(pod, "double") is grpc.StatusCode.NOT_FOUND
    assert await checked(pod, "") == SERVING
