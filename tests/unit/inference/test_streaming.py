"""Predictions over one stream: order, bounds, errors, ends. Without a transport: the requests are an iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from modelyard.core.errors import INTERNAL_TEXT, NotFound, TokenExpired, Unavailable
from modelyard.core.tokens import Caller
from modelyard.inference.protocol.streaming import PredictionStream, check_token
from modelyard.oip import open_inference_pb2 as pb
from support.waiting import eventually

Request = pb.ModelInferRequest


class Client:
    """The requests of one stream, sent when the test says so, and how many of them were read."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Request | Exception | None] = asyncio.Queue()
        self.read = 0

    def send(self, *ids: object) -> None:
        for one in ids:
            self._queue.put_nowait(Request(id=str(one)))

    def end(self, error: Exception | None = None) -> None:
        self._queue.put_nowait(error)

    async def requests(self) -> AsyncIterator[Request]:
        while (request := await self._queue.get()) is not None:
            if isinstance(request, Exception):
                raise request
            self.read += 1
            yield request


class Model:
    """Answers when it is allowed to."""

    def __init__(self) -> None:
        self.running: dict[str, asyncio.Event] = {}
        self.most = 0
        self.cancelled: list[str] = []

    async def answer(self, request: Request) -> pb.ModelInferResponse:
        allowed = self.running[request.id] = asyncio.Event()
        self.most = max(self.most, len(self.running))
        try:
            await allowed.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.id)
            raise
        finally:
            del self.running[request.id]
        return pb.ModelInferResponse(id=request.id)

    def allow(self, *ids: object) -> None:
        for one in ids:
            self.running[str(one)].set()


async def at_once(request: Request) -> pb.ModelInferResponse:
    """Answers everything but requests called `bad` and `broken`."""
    if request.id == "bad":
        raise NotFound.resource("models/bad")
    if request.id == "broken":
        raise ValueError("secret detail")
    return pb.ModelInferResponse(id=request.id)


def stream(
    answer: Callable[[Request], Awaitable[pb.ModelInferResponse]],
    *,
    limit: int = 8,
    stopping: asyncio.Event | None = None,
    grpc_errors: bool = False,
) -> PredictionStream:
    return PredictionStream(answer, limit=limit, stopping=stopping or asyncio.Event(), grpc_errors=grpc_errors)


async def until(condition: Callable[[], bool]) -> None:
    async def probe() -> bool:
        return condition()

    await eventually(probe, interval=0)


def ids(replies: list[pb.ModelStreamInferResponse]) -> list[str]:
    return [reply.infer_response.id for reply in replies]


async def all_of(replies: AsyncIterator[pb.ModelStreamInferResponse]) -> list[pb.ModelStreamInferResponse]:
    return [reply async for reply in replies]


async def test_replies_come_in_the_order_of_the_requests_whichever_is_ready_first() -> None:
    client, model = Client(), Model()
    client.send(0, 1, 2)
    client.end()
    replies = asyncio.create_task(all_of(stream(model.answer).replies(client.requests())))
    await until(lambda: len(model.running) == 3)
    model.allow(2, 1)
    await until(lambda: len(model.running) == 1)
    assert not replies.done()
    model.allow(0)
    assert ids(await replies) == ["0", "1", "2"]


async def test_no_more_are_read_than_are_computed_at_once() -> None:
    client, model = Client(), Model()
    client.send(*range(6))
    client.end()
    replies = stream(model.answer, limit=2).replies(client.requests())
    seen = []
    for number in range(6):
        pending = asyncio.ensure_future(anext(replies))
        await until(lambda number=number: str(number) in model.running)  # type: ignore[misc]
        assert client.read <= number + 2
        model.allow(number)
        seen.append(await pending)
    assert ids(seen) == [str(number) for number in range(6)]
    assert model.most == 2
    with pytest.raises(StopAsyncIteration):
        await anext(replies)


async def test_every_prediction_says_that_it_is_the_last_of_its_request() -> None:
    client = Client()
    client.send("a")
    client.end()
    (reply,) = await all_of(stream(at_once).replies(client.requests()))
    assert reply.infer_response.parameters["triton_final_response"].bool_param
    assert reply.error_message == ""


async def test_an_error_is_a_reply_with_the_id_and_the_stream_goes_on() -> None:
    client = Client()
    client.send("a", "bad", "broken", "b")
    client.end()
    replies = await all_of(stream(at_once).replies(client.requests()))
    assert ids(replies) == ["a", "bad", "broken", "b"]
    texts = [reply.error_message for reply in replies]
    assert texts == ["", "models/bad does not exist", INTERNAL_TEXT, ""]
    assert replies[1].infer_response == pb.ModelInferResponse(id="bad")


async def test_an_error_ends_the_stream_for_who_asked_for_that_behind_what_came_before() -> None:
    client = Client()
    client.send("a", "bad", "b")
    replies = stream(at_once, grpc_errors=True).replies(client.requests())
    assert ids([await anext(replies)]) == ["a"]
    with pytest.raises(NotFound):
        await anext(replies)


async def test_what_is_wrong_with_the_stream_itself_ends_it_behind_what_was_accepted() -> None:
    client = Client()
    client.send("a")
    client.end(TokenExpired("over"))
    replies = stream(at_once).replies(client.requests())
    assert ids([await anext(replies)]) == ["a"]
    with pytest.raises(TokenExpired):
        await anext(replies)


async def test_a_pod_that_stops_answers_what_it_has_read_and_ends_the_stream() -> None:
    client, model, stopping = Client(), Model(), asyncio.Event()
    client.send(0, 1)
    replies = stream(model.answer, stopping=stopping).replies(client.requests())
    first = asyncio.ensure_future(anext(replies))
    await until(lambda: len(model.running) == 2)
    stopping.set()
    await asyncio.sleep(0)
    client.send(2)
    model.allow(0, 1)
    assert ids([await first, await anext(replies)]) == ["0", "1"]
    with pytest.raises(Unavailable) as raised:
        await anext(replies)
    assert raised.value.retry_after
    assert client.read == 2


async def test_a_stream_whose_client_has_finished_ends_well_also_when_the_pod_stops() -> None:
    client, model, stopping = Client(), Model(), asyncio.Event()
    client.send(0)
    client.end()
    replies = stream(model.answer, stopping=stopping).replies(client.requests())
    first = asyncio.ensure_future(anext(replies))
    await until(lambda: "0" in model.running)
    stopping.set()
    await asyncio.sleep(0)
    model.allow(0)
    assert ids([await first]) == ["0"]
    with pytest.raises(StopAsyncIteration):
        await anext(replies)


@pytest.mark.parametrize("waiting", [True, False], ids=["for an answer", "for the client to take one"])
async def test_a_client_that_goes_ends_everything_of_its_stream(waiting: bool) -> None:
    client, model = Client(), Model()
    client.send(0, 1, 2)
    before = asyncio.all_tasks()
    replies = stream(model.answer).replies(client.requests())
    pending = asyncio.ensure_future(anext(replies))
    await until(lambda: len(model.running) == 3)
    if waiting:
        pending.cancel()
        await asyncio.wait([pending])
        assert sorted(model.cancelled) == ["0", "1", "2"]
    else:
        model.allow(0)
        await pending
        await replies.aclose()
        assert sorted(model.cancelled) == ["1", "2"]
    assert asyncio.all_tasks() <= before


async def test_an_empty_stream_ends_well() -> None:
    client = Client()
    client.end()
    assert await all_of(stream(at_once).replies(client.requests())) == []


def test_a_stream_does_not_outlive_its_token() -> None:
    check_token(Caller("somebody", "t", frozenset(), frozenset(), "id", expire_time=float("inf")))
    with pytest.raises(TokenExpired):
        check_token(Caller("somebody", "t", frozenset(), frozenset(), "id", expire_time=1.0))
