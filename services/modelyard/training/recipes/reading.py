"""From a recipe's data to a TrainingSpec, led by the proto's own descriptors.

Unlike protobuf's JSON reader it hears short forms, says every wrong field at once, and says where each one is.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from modelyard.core.errors import Violations
from modelyard.training.fields import Field
from modelyard.v1.training_spec_pb2 import TrainingSpec

from .scalars import read_scalar
from .shorthand import write_out
from .yaml_source import parse_yaml

ROOT = "recipe"


def load_recipe(text: str) -> TrainingSpec:
    """The spec that a recipe describes, as written: `check_spec` checks its values and fills in defaults.

    Raises InvalidFields for text that is not YAML (field `recipe`) and for unknown keys and wrong types (by the path of
    each, as in `network.layer_list.layers[2].linear.outputs`).
    """
    data = parse_yaml(text, ROOT)
    violations = Violations()
    spec = TrainingSpec()
    if isinstance(data, dict):
        _fill(spec, data, Field(violations, ""))
    else:
        violations.add(ROOT, f"expected the fields of a training spec, got {describe(data)}")
    violations.raise_if_any()
    return spec


def describe(value: object) -> str:
    """What came, for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "a mapping"
    return repr(value)


def _fill(message: Message, data: Mapping[object, object], at: Field) -> None:
    """Sets the fields of `message` that `data` names."""
    given: set[str] = set()
    for key, value in data.items():
        here = at.child(str(key))
        field = _field_of(message, str(key), here)
        if field is None:
            continue
        if here.check(field.name not in given, "is there already under its other name"):
            given.add(field.name)
            _set(message, field, value, here)


def _field_of(message: Message, key: str, at: Field) -> FieldDescriptor | None:
    descriptor = message.DESCRIPTOR
    found = descriptor.fields_by_name.get(key) or descriptor.fields_by_camelcase_name.get(key)
    field = cast("FieldDescriptor | None", found)  # the stubs also name the C implementation of the same class
    if field is None:
        names = [field.name for field in descriptor.fields]
        close = difflib.get_close_matches(key, names, n=1)
        expected = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names) or 'no fields'}"
        at.reject(f"unknown field; {expected}")
    return field


def _set(message: Message, field: FieldDescriptor, value: object, at: Field) -> None:
    """Sets one field. `key:` without a value leaves it unset, or, for one of a choice, chooses it with its defaults."""
    choice = field.containing_oneof
    if value is None and (choice is None or field.message_type is None):
        return
    if choice is not None:
        other = message.WhichOneof(choice.name)
        if not at.check(other is None, f"excludes {other}; expected exactly one of the two"):
            return
    if field.is_repeated:
        _set_list(message, field, value, at)
    elif field.message_type is not None:
        child: Message = getattr(message, field.name)
        child.SetInParent()
        _fill_child(child, {} if value is None else value, at)
    else:
        scalar = read_scalar(field, value, at)
        if scalar is not None:
            setattr(message, field.name, scalar)


def _set_list(message: Message, field: FieldDescriptor, value: object, at: Field) -> None:
    if not isinstance(value, list):
        at.reject(f"expected a list, got {describe(value)}")
        return
    entries = getattr(message, field.name)
    for index, entry in enumerate(value):
        if field.message_type is not None:
            _fill_child(entries.add(), entry, at.item(index))
        else:
            scalar = read_scalar(field, entry, at.item(index))
            if scalar is not None:
                entries.append(scalar)


def _fill_child(message: Message, value: object, at: Field) -> None:
    written = write_out(message.DESCRIPTOR.full_name, value)
    if isinstance(written, dict):
        _fill(message, written, at)
    else:
        at.reject(f"expected a mapping of fields, got {describe(value)}")
