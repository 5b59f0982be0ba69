"""Structured logs: one JSON object a line on standard error, with the call's request id on every line of that call.

Secrets are kept out by key: a value logged under a name that looks like one is replaced before it is rendered.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import cast

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

_SECRET_KEYS = re.compile(r"authorization|secret|password|^token$|private_key|api_key", re.IGNORECASE)
# structlog's own setting writes out local variables: tokens, keys and callers' data.
_TRACEBACKS = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]*)@")


def configure(log_format: str = "json", level: str = "INFO", *, service: str = "") -> None:
    """Sets logging up for this process, the standard library's included. Call once, from a program's main."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _TRACEBACKS if log_format == "json" else structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(default=str)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(logging.getLevelName(level), logging.WARNING), force=True)
    if service:
        structlog.contextvars.bind_contextvars(service=service)


def get_logger() -> FilteringBoundLogger:
    """The process's logger."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replaces values under secret-looking keys, and passwords inside URLs."""
    for key, value in event.items():
        if _SECRET_KEYS.search(key):
            event[key] = "[redacted]"
        elif isinstance(value, str) and "@" in value:
            event[key] = _URL_PASSWORD.sub(r"\1:[redacted]@", value)
    return event
