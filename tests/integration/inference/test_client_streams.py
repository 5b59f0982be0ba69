"""Streams of our own client against a pod."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import numpy as np
import pytest

from modelyard import Client, RemoteError
from support import graphs
from support.identity import Identity
from support.inference_pod import Pod
from support.served_registry import ServedRegistry

Rows = Mapping[str, Any]


@pytest.fixture
async def scale(registry: ServedRegistry, pod: Pod) -> Pod:
    """The pod with `scale`, which doubles."""
    registry.add("scale", graphs.scale(2))
    await pod.until_ready("scale")
    return pod


async def with_client(pod: Pod, identity: Identity, action: Callable[[Client], Any]) -> Any:
    """What `action` answers, which runs in a thread beside the pod."""

    def run() -> Any:
        with Client(pod.address, identity.token("predictor")) as client:
            return action(client)

    return await asyncio.to_thread(run)


async def test_a_stream_yields_predictions_in_order(scale: Pod, identity: Identity) -> None:
    def stream(client: Client) -> list[tuple[list[list[float]], str]]:
        requests: Iterator[Rows] = ({"x": [[number, 1]]} for number in range(200))
        return [(one.output.tolist(), one.version) for one in client.predictions.stream("scale", requests)]

    assert await with_client(scale, identity, stream) == [([[2 * number, 2]], "1") for number in range(200)]


async def test_a_stream_may_be_left_in_the_middle(scale: Pod, identity: Identity) -> None:
    def stream(client: Client) -> tuple[Any, Any]:
        def endless() -> Iterator[Rows]:
            while True:
                yield {"x": [[1, 1]]}

        replies = client.predictions.stream("scale", endless())
        first = next(replies)
        replies.close()  # type: ignore[attr-defined]  # it is a generator
        return first.output.tolist(), client.predict("scale", {"x": [[4, 4]]}).output.tolist()

    assert await with_client(scale, identity, stream) == ([[2, 2]], [[8, 8]])


async def test_the_first_error_ends_the_stream_with_its_details(scale: Pod, identity: Identity) -> None:
    def stream(client: Client) -> list[Any]:
        requests: list[Rows] = [{"x": [[1, 1]]}, {"x": [[1, 1, 1]]}, {"x": [[1, 1]]}]
        replies = client.predictions.stream("scale", requests)
        seen: list[Any] = [next(replies).output.tolist()]
        with pytest.raises(RemoteError) as raised:
            next(replies)
        return [*seen, raised.value]

    first, error = await with_client(scale, identity, stream)
    assert first == [[2, 2]]
    assert (error.code, error.violations[0].field) == (grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].shape")


async def test_what_reading_the_requests_raised_is_raised_to_the_reader(scale: Pod, identity: Identity) -> None:
    def requests() -> Iterator[Rows]:
        yield {"x": np.ones((1, 2))}
        raise LookupError("no more rows")

    def stream(client: Client) -> None:
        with pytest.raises(LookupError, match="no more rows"):
            list(client.predictions.stream("scale", requests()))

    await with_client(scale, identity, stream)
