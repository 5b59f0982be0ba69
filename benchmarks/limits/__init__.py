"""What bounds a server here: gRPC itself, and ONNX Runtime itself."""

from .echo import running_aio_echo, running_cpp_echo
from .raw import RawSetting, best_setting, raw_loop

__all__ = ["RawSetting", "best_setting", "raw_loop", "running_aio_echo", "running_cpp_echo"]
