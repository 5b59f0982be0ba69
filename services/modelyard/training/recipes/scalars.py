"""Single values of a recipe: text, numbers, yes or no, enum names."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from modelyard.training.fields import Field, short_names

_INTEGER_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def read_scalar(field: FieldDescriptor, value: object, at: Field) -> str | float | None:
    """`value` as `field` holds it; None, with the reason noted, if it cannot."""
    kind = field.cpp_type
    if kind in _INTEGER_RANGES:
        return _integer(value, *_INTEGER_RANGES[kind], at)
    return _READERS[kind](field, value, at)


def _integer(value: object, least: int, greatest: int, at: Field) -> int | None:
    number = _as_number(value)
    if number is None or int(number) != number:
        at.reject(f"expected a whole number, got {value!r}")
        return None
    return int(number) if at.within(int(number), least, greatest) else None


def _double(_field: FieldDescriptor, value: object, at: Field) -> float | None:
    number = _as_number(value)
    if number is None:
        at.reject(f"expected a number, got {value!r}")
        return None
    return float(number)


def _as_number(value: object) -> int | float | None:
    """Also from text, as proto-JSON writes large integers, and as YAML 1.1 reads `1e-3`. Finite."""
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= _GREATEST_DOUBLE else None


_GREATEST_DOUBLE = 1.7976931348623157e308


def _boolean(_field: FieldDescriptor, value: object, at: Field) -> bool | None:
    if not isinstance(value, bool):
        at.reject(f"expected true or false, got {value!r}")
        return None
    return value


def _text(_field: FieldDescriptor, value: object, at: Field) -> str | None:
    if not isinstance(value, str):
        at.reject(f"expected text, got {value!r}")
        return None
    return value


def _enum(field: FieldDescriptor, value: object, at: Field) -> int | None:
    enum = cast("EnumDescriptor", field.enum_type)  # an enum field has one
    names = short_names(enum)
    if isinstance(value, str):
        wanted = value.upper()
        for number, name in names.items():
            if wanted in (name, enum.values_by_number[number].name):
                return number
    at.reject(f"expected one of {', '.join(names.values())}, got {value!r}")
    return None


_READERS: dict[int, Callable[[FieldDescriptor, object, Field], str | float | None]] = {
    FieldDescriptor.CPPTYPE_DOUBLE: _double,
    FieldDescriptor.CPPTYPE_BOOL: _boolean,
    FieldDescriptor.CPPTYPE_STRING: _text,
    FieldDescriptor.CPPTYPE_ENUM: _enum,
}
