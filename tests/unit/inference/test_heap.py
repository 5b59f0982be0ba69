"""Freed memory goes back to the operating system."""

from __future__ import annotations

import ctypes

import psutil
import pytest

from modelyard.inference.execution.run_memory import trim_heap

LIBC = ctypes.CDLL(None)
BLOCK_BYTES = 64 * 1024
"""Small enough to come from the heap and not from a mapping of its own."""
BLOCKS = 1000

pytestmark = pytest.mark.skipif(not hasattr(LIBC, "malloc_trim"), reason="the C library cannot")


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def test_what_was_freed_between_blocks_in_use_is_given_back() -> None:
    malloc, free = LIBC.malloc, LIBC.free
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    blocks = [malloc(BLOCK_BYTES) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    for block in blocks[:-1]:  # the last one keeps the heap from shrinking by itself
        free(block)
    before = resident_bytes()
    trim_heap()
    assert before - resident_bytes() > BLOCKS * BLOCK_BYTES / 2
    free(blocks[-1])
