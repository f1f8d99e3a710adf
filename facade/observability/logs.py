"""Structured logs on one stream: JSON for machines, columns for a terminal.

Guarantees: every line, third-party ones included, passes `redaction.redact`; tracebacks never show
local variables; within `request_context` every line carries the request id. Changes the
process-wide logging set-up, so only a start command calls `configure`.
"""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog
from structlog.typing import Processor

from facade.observability.redaction import redact

_REQUEST_ID_BYTES = 8


def configure(level: str, style: str, stream: TextIO) -> None:
    """Set logging up for this process.

    Arguments:
        level: "debug", "info", "warning" or "error": the lowest shown.
        style: "json", "console", or "auto" (console when `stream` is a terminal).
        stream: where lines go; stdout belongs to results.
    """
    console = style == "console" or (style == "auto" and stream.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    else:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*before, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    _adopt_stdlib(before, renderer, stream, number)


def _adopt_stdlib(
    before: list[Processor], renderer: Processor, stream: TextIO, number: int
) -> None:
    """Send what libraries log through the same processors."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            # Redaction sees the library's traceback too, so it runs here and not in the pre-chain.
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *before,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries' chatter below warning is about themselves, and may quote URLs and headers.
    root.setLevel(max(number, logging.WARNING))


def new_request_id() -> str:
    """A fresh id for one request: 16 hex digits. Never taken from the peer."""
    return secrets.token_hex(_REQUEST_ID_BYTES)


@contextmanager
def request_context(request_id: str) -> Iterator[None]:
    """Within, every log line of this task (and tasks it starts) carries `request_id`."""
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        yield
