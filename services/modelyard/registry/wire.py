"""What the converters share: times and element types."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from modelyard.v1 import tensor_pb2


def to_timestamp(time: int) -> Timestamp:
    """From microseconds since 1970."""
    return Timestamp(seconds=time // 1_000_000, nanos=time % 1_000_000 * 1000)


def to_data_type(name: str) -> tensor_pb2.DataType.ValueType:
    """From the Open Inference Protocol's name, as in `FP32`."""
    return tensor_pb2.DataType.Value(f"DATA_TYPE_{name}")
