"""Random changes to any protobuf message: fields, elements, maps, values at the edges, bytes of its wire form."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message

_INTEGERS = (0, 1, 2, 3, 4, 7, 8, 9, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)
_DOUBLES = (0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 1e300)
_UNSIGNED = (Field.TYPE_UINT32, Field.TYPE_UINT64, Field.TYPE_FIXED32, Field.TYPE_FIXED64)
_NARROW = (Field.TYPE_INT32, Field.TYPE_UINT32, Field.TYPE_SINT32, Field.TYPE_FIXED32, Field.TYPE_SFIXED32)


def mutate(chance: random.Random, message: Any, texts: list[str]) -> None:
    """Changes one thing somewhere in `message`. `texts`: what strings become, beside random ones."""
    parts = list(_parts(message))
    part = chance.choice(parts)
    field = chance.choice(part.DESCRIPTOR.fields)
    if _is_map(field):
        _mutate_map(chance, part, field, texts)
    elif field.is_repeated:
        _mutate_list(chance, getattr(part, field.name), field, texts)
    elif field.message_type is not None:
        part.ClearField(field.name) if chance.random() < 0.5 else getattr(part, field.name).SetInParent()
    elif chance.random() < 0.2:
        part.ClearField(field.name)
    else:
        setattr(part, field.name, _value(chance, field, texts))


def flip(chance: random.Random, payload: bytes) -> bytes:
    """The wire form with some bytes changed, left out, or doubled."""
    changed = bytearray(payload)
    for _ in range(chance.randint(1, 4)):
        where = chance.randrange(len(changed) + 1)
        kind = chance.random()
        if kind < 0.6 and where < len(changed):
            changed[where] = chance.randrange(256)
        elif kind < 0.8:
            del changed[where : where + chance.randint(1, 4)]
        else:
            changed[where:where] = changed[where : where + chance.randint(1, 8)]
    return bytes(changed)


def _parts(message: Message) -> Iterator[Any]:
    """The message and every message inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or _is_map(field):
            continue
        for part in value if field.is_repeated else [value]:
            yield from _parts(part)


def _is_map(field: Field) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _mutate_map(chance: random.Random, part: Any, field: Field, texts: list[str]) -> None:
    entries = getattr(part, field.name)
    if entries and chance.random() < 0.3:
        del entries[chance.choice(sorted(entries))]
        return
    key = chance.choice(sorted(entries)) if entries and chance.random() < 0.5 else chance.choice(texts)
    inner = chance.choice(entries[key].DESCRIPTOR.fields)
    setattr(entries[key], inner.name, _value(chance, inner, texts))


def _mutate_list(chance: random.Random, elements: Any, field: Field, texts: list[str]) -> None:
    kind = chance.random()
    if elements and kind < 0.25:
        del elements[chance.randrange(len(elements))]
    elif elements and kind < 0.5:
        copy = elements[chance.randrange(len(elements))]
        elements.append(copy)
    elif field.message_type is not None:
        elements.add()
    elif elements and kind < 0.8:
        elements[chance.randrange(len(elements))] = _value(chance, field, texts)
    else:
        elements.append(_value(chance, field, texts))


def _value(chance: random.Random, field: Field, texts: list[str]) -> Any:
    if field.type == Field.TYPE_STRING:
        return chance.choice(texts)
    if field.type == Field.TYPE_BYTES:
        return chance.randbytes(chance.choice((0, 1, 2, 4, 8, 16, 17)))
    if field.type == Field.TYPE_BOOL:
        return chance.random() < 0.5
    if field.type in (Field.TYPE_DOUBLE, Field.TYPE_FLOAT):
        return chance.choice(_DOUBLES)
    value = chance.choice(_INTEGERS)
    if field.type in _NARROW:
        value &= 0x7FFFFFFF
    return value if field.type in _UNSIGNED or chance.random() < 0.7 else -value
