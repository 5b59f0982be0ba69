"""The protocol's element types, and what each is in NumPy and on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .errors import TensorError


@dataclass(frozen=True, slots=True)
class Datatype:
    """One element type."""

    name: str
    """As in a request, for example `FP32`."""
    dtype: np.dtype[Any]
    """The elements' type in an array. BF16: its bits as uint16. BYTES: objects that are `bytes`."""
    contents: str | None
    """The field of InferTensorContents that carries it; None if it travels raw only."""

    @property
    def itemsize(self) -> int:
        """Bytes of one element in raw contents; 0 for BYTES, whose elements have lengths of their own."""
        return 0 if self.name == "BYTES" else self.dtype.itemsize


def _datatype(name: str, dtype: str, contents: str | None) -> tuple[str, Datatype]:
    return name, Datatype(name, np.dtype(dtype), contents)


DATATYPES: Final[dict[str, Datatype]] = dict([
    _datatype("BOOL", "?", "bool_contents"),
    _datatype("UINT8", "<u1", "uint_contents"),
    _datatype("UINT16", "<u2", "uint_contents"),
    _datatype("UINT32", "<u4", "uint_contents"),
    _datatype("UINT64", "<u8", "uint64_contents"),
    _datatype("INT8", "<i1", "int_contents"),
    _datatype("INT16", "<i2", "int_contents"),
    _datatype("INT32", "<i4", "int_contents"),
    _datatype("INT64", "<i8", "int64_contents"),
    _datatype("FP16", "<f2", None),
    _datatype("FP32", "<f4", "fp32_contents"),
    _datatype("FP64", "<f8", "fp64_contents"),
    _datatype("BF16", "<u2", None),
    _datatype("BYTES", "O", "bytes_contents"),
])  # fmt: skip
"""By name. Raw elements are little-endian (the wire's order), whatever the machine."""

_BY_DTYPE: Final = {
    datatype.dtype: datatype for datatype in DATATYPES.values() if datatype.name not in ("BF16", "BYTES")
}


def datatype_named(name: str) -> Datatype:
    """The datatype of this name; raises TensorError if the protocol has none."""
    try:
        return DATATYPES[name]
    except KeyError:
        raise TensorError(f"expected a datatype of {', '.join(DATATYPES)}; got {name[:40]!r}") from None


def datatype_of(array: NDArray[Any]) -> Datatype:
    """What `array` travels as. Text and objects are BYTES; BF16 is never guessed, since its bits are a plain uint16."""
    if array.dtype.kind in "OSU":
        return DATATYPES["BYTES"]
    try:
        return _BY_DTYPE[array.dtype.newbyteorder("<")]
    except KeyError:
        raise TensorError(f"arrays of {array.dtype} have no datatype in the protocol") from None


def to_bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of each element as bfloat16, rounded to nearest, ties to even; a NaN stays one."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    # Adding half of the part that is cut off, less one unit if the kept part is even, carries exactly when rounding up.
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(array), np.uint16(0x7FC0), rounded.astype(np.uint16))


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The values of bfloat16 bits, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
