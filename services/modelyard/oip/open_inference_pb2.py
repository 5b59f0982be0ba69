"""The messages of `protos/inference/open_inference.proto`, made at import from the private pool.

Type checkers and editors read the generated stub beside this file, which carries the comments of the source.
"""

from __future__ import annotations

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass

from .pool import DESCRIPTOR as DESCRIPTOR

globals().update({name: GetMessageClass(message) for name, message in DESCRIPTOR.message_types_by_name.items()})
for _name, _enum in DESCRIPTOR.enum_types_by_name.items():
    globals()[_name] = EnumTypeWrapper(_enum)
    globals().update({value.name: value.number for value in _enum.values})
