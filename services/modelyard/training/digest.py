"""The name of a run: SHA-256 over the canonical form of its spec."""

from __future__ import annotations

import hashlib
import json

from google.protobuf.json_format import MessageToDict

from modelyard.v1.training_spec_pb2 import TrainingSpec


def canonical_json(spec: TrainingSpec) -> str:
    """Proto-JSON in one line with sorted keys, the proto's field names and ASCII only.

    Fields at their proto default are left out, so a field that a later release adds does not rename older runs.
    Protobuf's own binary form will not do: it is not canonical across languages and versions
    (https://protobuf.dev/programming-guides/serialization-not-canonical/).
    """
    fields = MessageToDict(spec, preserving_proto_field_name=True)
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def spec_digest(spec: TrainingSpec) -> str:
    """SHA-256 of the canonical form, hexadecimal. Give it a spec that `check_spec` has normalised: defaults count."""
    return hashlib.sha256(canonical_json(spec).encode("ascii")).hexdigest()
