"""The memory that predictions share: one arena with a limit, for graphs whose needs nobody can know beforehand.

Without it, a graph that asks for 10^11 elements, or a caller who sends a sequence of a million, has the kernel end the
pod. A process-wide limit (RLIMIT_AS) is no answer: what then fails is whatever allocates next, in any thread, and gRPC
aborts when it cannot. ONNX Runtime has one environment a process, so there is one arena, made once.

Weights of these graphs count too, so the limit holds room for them; where they outgrow it, the runtime's own sum wraps
around and nothing is limited any more, which the memory budget for loaded versions prevents.
"""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import onnxruntime as ort

from modelyard.core.logs import get_logger
from modelyard.inference.loading.smallest_graph import smallest_graph

_OPSET, _IR = 15, 8  # of the graph that gives memory back; old enough for every runtime
_SAME_AS_REQUESTED = 1  # grow by what is asked, not by powers of two: the limit is then the limit

log = get_logger()


class RunMemory:
    """The arena. Use `shared()`: the runtime takes one per process and never gives it back."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(
            info, ort.OrtArenaCfg({"max_mem": limit_bytes, "arena_extend_strategy": _SAME_AS_REQUESTED})
        )
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self.use_for(options)
        self._janitor = ort.InferenceSession(smallest_graph(_OPSET, _IR), options, ["CPUExecutionProvider"])

    def use_for(self, options: ort.SessionOptions) -> None:
        """Has a session with these options take its memory from here."""
        options.add_session_config_entry("session.use_env_allocators", "1")

    def reclaim(self) -> None:
        """Gives what no run is using back to the operating system. The runtime does so only behind a run."""
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._janitor.run(None, {"x": np.zeros(1, np.float32)}, options)


def trim_heap() -> None:
    """Gives what the C library keeps of freed memory back to the operating system, where it can (glibc). Takes
    milliseconds and lets other Python threads run."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


_lock = threading.Lock()
_shared: RunMemory | None = None


def shared(limit_bytes: int) -> RunMemory | None:
    """The process's arena, made with this limit if there is none yet; None without a limit (0)."""
    global _shared
    with _lock:
        if _shared is None and limit_bytes:
            _shared = RunMemory(limit_bytes)
        if _shared is not None and limit_bytes not in {0, _shared.limit_bytes}:
            log.warning("the limit of the process's first pod counts", limit_bytes=_shared.limit_bytes)
        return _shared if limit_bytes else None
