"""Structured logs: one JSON object a line on standard error, with the call's request id, and its trace's id, on every
line of that call.

Secrets are kept out by key: a value logged under a name that looks like one is replaced before it is rendered.
"""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass
from typing import Final, cast

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from .trace_context import current

_SECRET_KEYS = re.compile(r"authorization|secret|password|^token$|private_key|api_key", re.IGNORECASE)
# structlog's own setting writes out local variables: tokens, keys and callers' data.
_TRACEBACKS = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]*)@")


@dataclass(slots=True)
class Severities:
    """What is logged now, of this process's own lines and, from warnings up, of its libraries'. Errors always are."""

    debug: bool = False
    info: bool = True
    warning: bool = True

    @classmethod
    def from_level(cls, level: str) -> Severities:
        """All from this level up."""
        number = logging.getLevelNamesMapping()[level]
        return cls(number <= logging.DEBUG, number <= logging.INFO, number <= logging.WARNING)


_logged: Final = Severities()
"""Of the process: a setting that may change while it runs."""


def severities() -> Severities:
    """What is logged now."""
    return Severities(_logged.debug, _logged.info, _logged.warning)


def set_severities(wanted: Severities) -> None:
    """Changes what is logged, from the next line on."""
    _logged.debug, _logged.info, _logged.warning = wanted.debug, wanted.info, wanted.warning
    logging.getLogger().setLevel(logging.WARNING if wanted.warning else logging.ERROR)


def configure(log_format: str = "json", level: str = "INFO", *, service: str = "") -> None:
    """Sets logging up for this process, the standard library's included. Call once, from a program's main."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        name_trace,
        *([_named(service)] if service else []),
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
        processors=[_drop_unwanted, *shared, renderer],
        # All of them pass here, and `_drop_unwanted` decides: what is logged may change while the process runs.
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], force=True)
    set_severities(Severities.from_level(level))


def get_logger() -> FilteringBoundLogger:
    """The process's logger."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def _named(service: str) -> Processor:
    """Puts the program's name on every line, whichever thread or task writes it."""

    def put(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    return put


def _drop_unwanted(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Ends what is not logged now, before any work is done for it. Levels that are no severity here are errors."""
    if not getattr(_logged, method, True):
        raise structlog.DropEvent
    return event


def name_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Adds the trace that the call belongs to, if there is one."""
    trace = current()
    if trace is not None:
        event["trace_id"] = trace.trace_id
    return event


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replaces values under secret-looking keys, and passwords inside URLs."""
    for key, value in event.items():
        if _SECRET_KEYS.search(key):
            event[key] = "[redacted]"
        elif isinstance(value, str) and "@" in value:
            event[key] = _URL_PASSWORD.sub(r"\1:[redacted]@", value)
    return event
