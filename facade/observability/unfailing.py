"""A log's stream that never fails who writes to it.

Guarantees: a line that cannot be written (whoever read the log is gone, its disk is full) is dropped and
counted, and the first that can be written again is followed by how many were: what is served, and whether
a signal is obeyed, must not depend on the log. Does not help where the log's reader is there and does
not read: then the write waits.
"""

import io
import json
import time
from typing import TextIO


class Unfailing(io.TextIOBase):
    """Writes to `stream`, or not."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self.lost = 0
        """Lines that could not be written since the last one that could."""

    def write(self, text: str) -> int:
        """As a text stream's, but for errors."""
        try:
            self._stream.write(text)
            self._stream.flush()
            if self.lost:
                told, self.lost = _told(self.lost), 0
                self._stream.write(told)
                self._stream.flush()
        except (OSError, ValueError):  # ValueError: it was closed
            self.lost += text.count("\n")
        return len(text)

    def flush(self) -> None:
        """Nothing is left to flush."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()


def _told(lost: int) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"event": "log_lines_lost", "count": lost, "level": "warning", "timestamp": when}
    return json.dumps(line) + "\n"
