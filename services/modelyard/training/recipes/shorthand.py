"""The short forms of a recipe, written out before the fields are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from modelyard.training.fields import short_names
from modelyard.v1 import training_spec_pb2 as pb

Value: TypeAlias = object
"""What YAML gives: None, bool, int, float, str, list, dict."""

_ACTIVATIONS = frozenset(name.lower() for name in short_names(pb.Activation.DESCRIPTOR).values())


def write_out(message: str, value: Value) -> Value:
    """`value` in the long form of the message of that full name; what is no short form comes back as it is."""
    expand = _SHORT_FORMS.get(message)
    return expand(value) if expand else value


def _network(value: Value) -> Value:
    if not isinstance(value, dict) or "layers" not in value or "layer_list" in value:
        return value
    rest = {key: entry for key, entry in value.items() if key != "layers"}
    return {**rest, "layer_list": {"layers": value["layers"]}}


def _layer(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    return {"activation": value} if value.lower() in _ACTIVATIONS else {value: {}}


_SHORT_FORMS: dict[str, Callable[[Value], Value]] = {
    pb.Network.DESCRIPTOR.full_name: _network,
    pb.Layer.DESCRIPTOR.full_name: _layer,
}
