"""Structured logs on one stream: JSON for machines, columns for a terminal.

Guarantees: every line, third-party ones included, passes `redaction.redact`; tracebacks never show
local variables; a JSON line is one write that no other process's mixes with (`lines`); a line
that cannot be written fails nobody (`unfailing`); within `request_context` every line carries the request
id. Changes the process-wide logging set-up, so only a start command calls `configure`.
"""

import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

from facade.observability.lines import fitted
from facade.observability.peer_faults import PeerFaults
from facade.observability.redaction import redact
from facade.observability.unfailing import Unfailing

_REQUEST_ID_BYTES = 8
_IDS_AT_ONCE = 256
"""Random bytes are asked for in blocks: a system call per request would cost more than the id."""


def configure(level: str, style: str, stream: TextIO) -> None:
    """Set logging up for this process.

    Arguments:
        level: "debug", "info", "warning" or "error": the lowest shown.
        style: "json", "console", or "auto" (console when `stream` is a terminal).
        stream: where lines go; stdout belongs to results.
    """
    stream = cast("TextIO", Unfailing(stream))
    console = style == "console" or (style == "auto" and stream.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        Stamp(),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    else:
        renderer = _JsonLine()
    structlog.configure(
        processors=[*before, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=Lines(stream, ready_made=not console and number <= logging.INFO),
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
    handler.addFilter(PeerFaults())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries' chatter below warning is about themselves, and may quote URLs and headers.
    root.setLevel(max(number, logging.WARNING))


class Lines(structlog.WriteLoggerFactory):
    """Where lines go.

    Arguments:
        ready_made: lines of level info may be written here as JSON by who makes them.
    """

    def __init__(self, stream: TextIO, *, ready_made: bool) -> None:
        super().__init__(stream)
        self.stream = stream
        self.ready_made = ready_made


class Stamp:
    """Adds the time, UTC. The part down to the second is made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def __call__(self, logger: object, method: str, event_dict: EventDict) -> EventDict:
        event_dict["timestamp"] = self.now()
        return event_dict

    def now(self) -> str:
        """The time, to the microsecond."""
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{nanoseconds // 1000:06d}Z"


class _JsonLine:
    """Renders JSON that fits; what JSON does not know, as text. (structlog's makes an encoder per line.)"""

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(default=str).encode

    def __call__(self, logger: object, method: str, event_dict: EventDict) -> str:
        return fitted(event_dict, self._encode)


def new_request_id() -> str:
    """A fresh id for one request: 16 hex digits. Never taken from the peer."""
    return secrets.token_hex(_REQUEST_ID_BYTES)


@contextmanager
def request_context(request_id: str) -> Iterator[None]:
    """Within, every log line of this task (and tasks it starts) carries `request_id`."""
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        yield


def request_ids() -> Iterator[str]:
    """Fresh ids like `new_request_id`'s, for a port that uses up many."""
    digits = 2 * _REQUEST_ID_BYTES
    while True:
        many = os.urandom(_IDS_AT_ONCE * _REQUEST_ID_BYTES).hex()
        for start in range(0, len(many), digits):
            yield many[start : start + digits]


def begin_request(request_id: str) -> None:
    """From now on every log line of this task (and tasks it starts) carries `request_id`.

    For a handler that is its task's whole work, as aiohttp's are: nothing is undone, so that
    nothing has to be remembered.
    """
    structlog.contextvars.bind_contextvars(request_id=request_id)
