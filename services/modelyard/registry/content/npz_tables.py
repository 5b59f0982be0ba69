"""Surveys a NumPy archive (.npz) array by array, piece by piece, without ever unpickling.

The archive is a zip file of `.npy` files. Everything that a zip file may do beyond that is refused: encryption, other
compressors than deflate, names twice, sizes that do not agree, and archives that unpack to more than is allowed.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from modelyard.core.errors import MalformedContent, TooLarge
from modelyard.core.names import shorten

from .limits import MEBIBYTE, TableLimits
from .messages import TableFacts
from .tables import ColumnSurvey, check_column_names

_SUFFIX = ".npy"
_PIECE_BYTES = 4 * MEBIBYTE
_MAX_TEXT_BYTES = MEBIBYTE  # of one element of a text array
_COMPRESSORS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1

_NUMBER_TYPES = {
    "b1": "BOOL", "u1": "UINT8", "u2": "UINT16", "u4": "UINT32", "u8": "UINT64",
    "i1": "INT8", "i2": "INT16", "i4": "INT32", "i8": "INT64", "f2": "FP16", "f4": "FP32", "f8": "FP64",
}  # fmt: skip


def read_npz(path: Path, limits: TableLimits) -> TableFacts:
    """Reads the file through; raises MalformedContent with the array that is wrong, TooLarge for a zip bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _survey(archive, limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, UnicodeDecodeError) as error:
        raise MalformedContent(f"not a whole NPZ file: {shorten(str(error), 300)}") from error


def _survey(archive: zipfile.ZipFile, limits: TableLimits) -> TableFacts:
    members = archive.infolist()
    if not members:
        raise MalformedContent("the NPZ file holds no arrays")
    for member in members:
        _check_member(member)
    names = [member.filename.removesuffix(_SUFFIX) for member in members]
    check_column_names(names, limits)
    expanded = sum(member.file_size for member in members)
    if expanded > limits.max_expanded_bytes:
        raise TooLarge(
            f"the arrays unpack to {expanded} bytes, at most {limits.max_expanded_bytes} are allowed",
            metadata={"limit_bytes": str(limits.max_expanded_bytes)},
        )
    surveys = [_Array(archive, member, name) for member, name in zip(members, names, strict=True)]
    first = surveys[0]
    for other in surveys:  # before any array is read through
        if other.row_count != first.row_count:
            raise MalformedContent(
                f"array {shorten(first.name)!r} has {first.row_count} rows, {shorten(other.name)!r} has "
                f"{other.row_count}; the first dimension of every array is the row"
            )
    if not first.row_count:
        raise MalformedContent("the arrays have no rows")
    return TableFacts(first.row_count, tuple(array.survey().facts() for array in surveys))


def _check_member(member: zipfile.ZipInfo) -> None:
    name = shorten(member.filename)
    if not member.filename.endswith(_SUFFIX):
        raise MalformedContent(f"the archive holds {name!r}, which is no array (its name does not end in {_SUFFIX})")
    if member.flag_bits & _ENCRYPTED:
        raise MalformedContent(f"{name!r} is encrypted")
    if member.compress_type not in _COMPRESSORS:
        raise MalformedContent(f"{name!r} is compressed by method {member.compress_type}; expected none or deflate")


class _Array:
    """One array of the archive; its header is read at once, its elements by `survey`."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> None:
        self._archive = archive
        self._member = member
        self.name = name
        with archive.open(member) as file:
            shape, self._dtype = _read_header(file, name)
            stored = member.file_size - file.tell()
        data_type = _data_type(name, self._dtype)
        needed = prod(shape) * self._dtype.itemsize
        if stored != needed:
            raise MalformedContent(
                f"array {shorten(name)!r} of shape {shape} needs {needed} bytes, the archive holds {stored}"
            )
        if not shape:
            raise MalformedContent(f"array {shorten(name)!r} is a single value; expected one row or more")
        self.row_count, *row_shape = shape
        self._survey = ColumnSurvey(name, data_type, tuple(row_shape))

    def survey(self) -> ColumnSurvey:
        """Reads the elements through, text too: that checks the archive's CRC."""
        with self._archive.open(self._member) as file:
            _read_header(file, self.name)
            for piece in _pieces(file, self._dtype):
                if self._survey.data_type != "BYTES":
                    self._survey.numbers.add(piece)
        return self._survey


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type as the `.npy` header says; the file stands at the first element then."""
    try:
        version = npy.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = npy.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = npy.read_array_header_2_0(file)
        else:  # 3.0 is for field names, and records are refused anyway
            raise MalformedContent(
                f"array {shorten(name)!r} is in version {version} of the format; expected 1.0 or 2.0"
            )
    except (ValueError, SyntaxError, RecursionError, TypeError, KeyError) as error:
        raise MalformedContent(f"{shorten(name)!r} is not a NumPy array: {shorten(str(error), 200)}") from error
    if any(size < 0 for size in shape):
        raise MalformedContent(f"array {shorten(name)!r} has the impossible shape {shape}")
    return shape, dtype


def _data_type(name: str, dtype: np.dtype[np.generic]) -> str:
    if dtype.hasobject:
        raise MalformedContent(f"array {shorten(name)!r} holds Python objects (pickles), which are never read")
    if dtype.kind in "SU" and 0 < dtype.itemsize <= _MAX_TEXT_BYTES:
        return "BYTES"
    known = _NUMBER_TYPES.get(f"{dtype.kind}{dtype.itemsize}") if dtype.shape == () else None
    if known is None:
        raise MalformedContent(
            f"array {shorten(name)!r} is of type {dtype}; expected truth values, integers or floats of at most "
            "64 bits, or short text"
        )
    return known


def _pieces(file: IO[bytes], dtype: np.dtype[np.generic]) -> Iterator[np.ndarray[tuple[int], np.dtype[np.generic]]]:
    """The elements in the order of the file, a few megabytes at a time."""
    piece_bytes = _PIECE_BYTES - _PIECE_BYTES % dtype.itemsize
    while data := file.read(piece_bytes):
        if len(data) % dtype.itemsize:
            raise EOFError("the last element is cut off")
        yield np.frombuffer(data, dtype=dtype)
