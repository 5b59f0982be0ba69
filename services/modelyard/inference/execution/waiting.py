"""The queue of one version: by priority, then by arrival; whoever gives up leaves it at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from .batches import QueuedRequest


class WaitingRequests:
    """What waits for a runner. Every operation but `take` and iteration takes constant time."""

    def __init__(self) -> None:
        self._levels: dict[int, OrderedDict[QueuedRequest, None]] = {}
        """By priority; a level exists while somebody waits in it."""
        self.rows = self.calls = 0
        """Of all that wait, together."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[QueuedRequest]:
        """First those who are served first."""
        for priority in sorted(self._levels):
            yield from self._levels[priority]

    def add(self, request: QueuedRequest) -> None:
        """Puts a request behind those of its priority."""
        level = self._levels.get(request.priority)
        if level is None:
            level = self._levels[request.priority] = OrderedDict()
        level[request] = None
        self._count += 1
        self.calls += request.calls
        self.rows += request.feeds.rows

    def discard(self, request: QueuedRequest) -> None:
        """Takes a request out; without effect if it is not in."""
        level = self._levels.get(request.priority)
        if level is None or request not in level:
            return
        del level[request]
        if not level:
            del self._levels[request.priority]
        self._count -= 1
        self.calls -= request.calls
        self.rows -= request.feeds.rows

    def first(self) -> QueuedRequest:
        """Who is served first. Raises ValueError if nobody waits."""
        return next(iter(self._levels[min(self._levels)]))

    def take(self, limit: int) -> list[QueuedRequest]:
        """Takes out the first request, and with it those behind it that may join and fit into `limit` rows together.

        The first one goes however many rows it has. One that does not fit stays, in its place: sooner or later it is
        the first.
        """
        first = self.first()
        taken, rows, key = [first], first.feeds.rows, first.feeds.key
        if rows < limit and self._count > 1:
            for request in self:
                feeds = request.feeds
                if request is not first and feeds.key == key and rows + feeds.rows <= limit:
                    taken.append(request)
                    rows += feeds.rows
                    if rows >= limit:
                        break
        if len(taken) == self._count:
            self._levels.clear()
            self._count = self.calls = self.rows = 0
        else:
            for request in taken:
                self.discard(request)
        return taken
