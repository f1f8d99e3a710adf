"""What aiohttp's servers log when a peer does not speak HTTP: one plain line, and not too many.

Guarantees: a request that cannot be parsed shows as a warning without a traceback, at most `LINES` per
`WINDOW_SECONDS`, so that no client fills the disk and `error` keeps meaning a fault of ours. Other records
pass unchanged.
"""

import logging

LINES = 20
WINDOW_SECONDS = 60.0
_LOGGER = "aiohttp.server"


class PeerFaults(logging.Filter):
    """A filter for the handler that every library's records go through."""

    def __init__(self) -> None:
        super().__init__()
        self._window_ends = 0.0
        self._shown = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown; a malformed request's is reworded."""
        if record.name != _LOGGER:
            return True
        # Whoever logs under that name has loaded it; a start must not wait for it.
        from aiohttp.http_exceptions import HttpProcessingError  # noqa: PLC0415

        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        if record.created >= self._window_ends:
            self._window_ends = record.created + WINDOW_SECONDS
            self._shown = 0
        self._shown += 1
        if self._shown > LINES:
            return False
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        words = record.getMessage()
        record.msg, record.args = f"{words}: malformed ({type(error).__name__})", ()
        record.exc_info = record.exc_text = None
        return True
