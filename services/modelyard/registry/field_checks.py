"""Checks of what callers write: texts, labels, names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modelyard.core.errors import InvalidFields, Violations
from modelyard.core.names import shorten

MAX_DISPLAY_NAME = 200
MAX_DESCRIPTION = 10_000
MAX_REASON = 1000
MAX_LABELS = 64
MAX_KEY = 63
MAX_VALUE = 200


def check_line(violations: Violations, path: str, value: str, limit: int) -> None:
    """One line of text."""
    violations.check(
        len(value) <= limit and (not value or value.isprintable()),
        path,
        f"expected at most {limit} printable characters, got {len(value)}: {shorten(value)!r}",
    )


def check_text(violations: Violations, path: str, value: str, limit: int) -> None:
    """Free text, over any number of lines."""
    violations.check(len(value) <= limit, path, f"expected at most {limit} characters, got {len(value)}")
    violations.check("\0" not in value, path, "expected text without NUL characters")


def check_labels(violations: Violations, path: str, labels: Mapping[str, str]) -> None:
    """A map of short texts."""
    violations.check(len(labels) <= MAX_LABELS, path, f"expected at most {MAX_LABELS}, got {len(labels)}")
    for key, value in labels.items():
        violations.check(
            1 <= len(key) <= MAX_KEY and key.isprintable(),
            path,
            f"expected keys of 1 to {MAX_KEY} printable characters, got {shorten(key)!r}",
        )
        check_line(violations, f"{path}[{shorten(key)}]", value, MAX_VALUE)


def check_by(violations: Violations, path: str, value: str, check: Callable[[str, str], object]) -> None:
    """`check(value, path)` raises InvalidFields; it is noted here and not raised."""
    try:
        check(value, path)
    except InvalidFields as error:
        violations.found.extend(error.violations)
