"""Resource names (https://google.aip.dev/122) and the ids in them. Clients send ids, never paths."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import InvalidFields

ID = r"[a-z][a-z0-9_-]{0,62}"
DATASET_ID = r"[a-z][a-z0-9-]{0,62}"
JOB_ID = r"[a-z0-9]{1,40}"
TENANT_ID = r"[a-z0-9-]{1,63}"
VERSION = r"[1-9][0-9]{0,17}"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_EXTERNAL_LOCATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{0,64}")


@dataclass(frozen=True, slots=True)
class NamePattern:
    """The form of one kind of resource name, as in `models/{model}/versions/{version}`."""

    template: str
    regex: re.Pattern[str]

    @classmethod
    def of(cls, template: str, **parts: str) -> NamePattern:
        """`parts` gives a regular expression for each `{part}` of the template."""
        pattern = template
        for part, expression in parts.items():
            pattern = pattern.replace("{" + part + "}", f"(?P<{part}>{expression})")
        return cls(template, re.compile(pattern))

    def parse(self, name: str, field: str) -> dict[str, str]:
        """The ids in `name`; raises InvalidFields for `field` if it is not of this form."""
        match = self.regex.fullmatch(name)
        if match is None:
            raise InvalidFields.one(field, f"expected {self.template}, got {shorten(name)!r}")
        return match.groupdict()


MODEL = NamePattern.of("models/{model}", model=ID)
MODEL_VERSION = NamePattern.of("models/{model}/versions/{version}", model=ID, version=f"(?:{VERSION}|{ID})")
MODEL_ALIAS = NamePattern.of("models/{model}/aliases/{alias}", model=ID, alias=ID)
DATASET = NamePattern.of("datasets/{dataset}", dataset=DATASET_ID)
TRAINING_JOB = NamePattern.of("trainingJobs/{training_job}", training_job=JOB_ID)
TENANT = NamePattern.of("tenants/{tenant}", tenant=TENANT_ID)
UPLOAD = NamePattern.of("uploads/{upload}", upload=r"[0-9a-f]{32}")


def check_id(value: str, field: str, expression: str = ID) -> str:
    """`value` if it is an id; raises InvalidFields for `field` otherwise."""
    if re.fullmatch(expression, value) is None:
        raise InvalidFields.one(
            field,
            f"expected an id of 1 to 63 characters (a-z, 0-9, -), beginning with a letter; got {shorten(value)!r}",
        )
    return value


def check_digest(value: str, field: str) -> str:
    """`value` if it is a SHA-256 in lower-case hexadecimal; raises InvalidFields for `field` otherwise."""
    if _DIGEST.fullmatch(value) is None:
        raise InvalidFields.one(field, f"expected a SHA-256 as 64 digits of 0-9 a-f, got {shorten(value)!r}")
    return value


def check_external_location(value: str, field: str) -> str:
    """`value` if a graph may point to a file of this name beside it; raises InvalidFields for `field` otherwise."""
    if _EXTERNAL_LOCATION.fullmatch(value) is None or value == "model.onnx":
        raise InvalidFields.one(
            field,
            f"expected at most 100 of A-Z a-z 0-9 . _ -, a letter or digit first, not model.onnx; got "
            f"{shorten(value)!r}",
        )
    return value


def check_request_id(value: str, field: str = "request_id") -> str:
    """`value` if it may be a request id (empty is allowed); raises InvalidFields for `field` otherwise."""
    if _REQUEST_ID.fullmatch(value) is None:
        raise InvalidFields.one(field, f"expected at most 64 of A-Z a-z 0-9 _ -, got {shorten(value)!r}")
    return value


def shorten(text: str, limit: int = 100) -> str:
    """`text`, cut for a message."""
    return text if len(text) <= limit else text[:limit] + "…"
