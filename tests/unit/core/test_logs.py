"""No secret reaches a log line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest
import structlog

from modelyard.core import logs


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged while the test runs; the process's logging is put back after it."""
    handlers, level = logging.root.handlers[:], logging.root.level
    stream = io.StringIO()
    with redirect_stderr(stream):
        logs.configure("json", "INFO", service="test")
        yield stream
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def test_secrets_are_replaced_by_key_and_inside_urls(lines: io.StringIO) -> None:
    structlog.get_logger().info(
        "connected", authorization="Bearer abc", database_url="postgresql://ann:swordfish@host/db", port=1
    )
    entry = json.loads(lines.getvalue())
    assert "swordfish" not in lines.getvalue()
    assert "abc" not in lines.getvalue()
    assert (entry["port"], entry["service"], entry["level"]) == (1, "test", "info")


def test_other_libraries_warnings_are_json_too(lines: io.StringIO) -> None:
    logging.getLogger("library").warning("something")
    assert json.loads(lines.getvalue())["event"] == "something"


def test_a_traceback_names_the_lines_and_not_what_their_variables_held(lines: io.StringIO) -> None:
    def connect(address: str) -> None:
        raise OSError("no answer")

    try:
        connect("swordfish")
    except OSError:
        structlog.get_logger().exception("failed")
    entry = json.loads(lines.getvalue())
    assert entry["exception"][0]["exc_value"] == "no answer"
    assert entry["exception"][0]["frames"][-1]["name"] == "connect"
    assert "swordfish" not in lines.getvalue()
