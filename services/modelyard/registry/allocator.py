"""Keeps the C allocator from hoarding.

glibc gives threads heaps of their own, up to eight for each core, and each keeps what its thread has freed. The blob
store's threads pass megabytes around, so a gigabyte uploaded left 130 MiB behind on two cores, and more on more; with
two heaps it is 50 MiB, at the same speed.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def bound_arenas() -> None:
    """Call before the first thread starts. Without effect where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
