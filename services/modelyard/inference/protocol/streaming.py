"""Predictions over one stream: computed side by side, answered in the order asked.

Never more at once than `limit`: the next request is read when an answer has been written, so that a client that sends
without reading is slowed down by its own connection, and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from modelyard.core.errors import INTERNAL_TEXT, ModelyardError, TokenExpired, Unavailable
from modelyard.core.logs import get_logger
from modelyard.core.tokens import Caller
from modelyard.oip import open_inference_pb2 as pb

GRPC_ERRORS = "triton_grpc_error"
"""Metadata: `true` ends the stream with the status of the first error."""
FINAL = "triton_final_response"
RETRY_STOPPING_S = 1.0
"""What a client is advised to wait when the pod stops: another one answers."""

Request = pb.ModelInferRequest
Reply = pb.ModelStreamInferResponse
Answer = Callable[[Request], Awaitable[pb.ModelInferResponse]]

log = get_logger()


class PredictionStream:
    """One stream."""

    def __init__(self, answer: Answer, *, limit: int, stopping: asyncio.Event, grpc_errors: bool) -> None:
        """`stopping`: set when the pod takes no more requests. `grpc_errors`: whether an error ends the stream."""
        self._answer = answer
        self._stopping = stopping
        self._grpc_errors = grpc_errors
        self._slots = asyncio.Semaphore(limit)
        self._accepted: asyncio.Queue[asyncio.Task[Reply] | None] = asyncio.Queue()

    async def replies(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Every reply, in the order of `requests`.

        Raises Unavailable behind the last accepted one when the pod stops, what reading the stream raises, and with
        `grpc_errors` what an answer raises. Closing it, or cancelling, ends all that is still being computed.
        """
        reader = asyncio.create_task(self._read(requests))
        stop = asyncio.create_task(self._stopping.wait())
        stop.add_done_callback(lambda _: reader.cancel())
        task: asyncio.Task[Reply] | None = None
        try:
            while (task := await self._accepted.get()) is not None:
                yield await task
                self._slots.release()
            await asyncio.wait((reader,))
            if reader.cancelled():
                raise Unavailable("the pod is stopping", retry_after=RETRY_STOPPING_S)
            reader.result()  # raises what was wrong with the stream itself
        finally:
            await self._end(reader, stop, task)

    async def _read(self, requests: AsyncIterator[Request]) -> None:
        """Begins an answer for every request, as far as there are slots."""
        iterator = aiter(requests)
        try:
            while True:
                await self._slots.acquire()
                request = await anext(iterator, None)
                if request is None:
                    return
                self._accepted.put_nowait(asyncio.create_task(self._reply(request)))
        finally:
            self._accepted.put_nowait(None)

    async def _reply(self, request: Request) -> Reply:
        try:
            response = await self._answer(request)
        except Exception as error:
            if self._grpc_errors:
                raise
            return _failed(request, error)
        response.parameters[FINAL].bool_param = True
        return Reply(infer_response=response)

    async def _end(self, *tasks: asyncio.Task[Reply] | asyncio.Task[None] | asyncio.Task[bool] | None) -> None:
        """Leaves nothing behind: what was accepted and not yet answered has nobody who waits for it."""
        running = [task for task in tasks if task is not None]
        while not self._accepted.empty():
            if (accepted := self._accepted.get_nowait()) is not None:
                running.append(accepted)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def check_token(caller: Caller) -> None:
    """Raises TokenExpired: a stream lives as long as its client likes, a token does not."""
    if time.time() > caller.expire_time:
        raise TokenExpired("the token's time is over; open a new stream with a new one")


def _failed(request: Request, error: Exception) -> Reply:
    """The reply to a request that could not be answered. It has the request's id and no other content."""
    if isinstance(error, ModelyardError):
        text = error.message
    else:
        log.error("unhandled error in a stream", exc_info=error)
        text = INTERNAL_TEXT
    return Reply(error_message=text, infer_response=pb.ModelInferResponse(id=request.id))
