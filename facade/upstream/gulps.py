"""Receiving a large body in large pieces.

A socket wakes us for every few KiB that came; each time costs a turn of the loop, a system call, the
HTTP parser and a task switch. SO_RCVLOWAT (socket(7)) lets the kernel gather first.

Guarantees: the mark never exceeds what is certain to come, so the end of a body is not waited for in
vain; bytes that trickle are handed over after `PATIENCE_SECONDS`; when `end` returns, the socket is as
before: the next answer on the connection may be short. Bodies of unknown length are left alone.
"""

import asyncio
import contextlib
import socket

import aiohttp

GULP_BYTES = 256 * 1024
"""What asyncio receives at most at once."""
PATIENCE_SECONDS = 0.05
_TLS_MARGIN_BYTES = 32 * 1024
"""Of what is still to come over TLS, part of a record may be here already."""


class Gulps:
    """The low-water mark of the socket under `response`, until `end`."""

    __slots__ = ("_expected", "_margin", "_mark", "_seen", "_socket", "_timer", "_took")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        connection = response.connection  # None when all of it is here
        transport = connection.transport if connection is not None else None
        self._socket = transport.get_extra_info("socket") if transport is not None else None
        tls = transport is not None and transport.get_extra_info("ssl_object") is not None
        self._margin = _TLS_MARGIN_BYTES if tls else 0
        self._expected = response.content_length or 0
        self._took = self._seen = 0
        self._mark = 1
        self._timer: asyncio.TimerHandle | None = None

    def took(self, count: int) -> None:
        """All that was received, `count` bytes of the body so far, has been taken."""
        self._took = count
        self._set(min(GULP_BYTES, self._expected - count - self._margin))
        if self._timer is None and self._mark > 1:
            self._wait()

    def end(self) -> None:
        """Put the socket back as it was. Calling again does nothing."""
        self._set(1)
        self._socket = None
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._look)

    def _look(self) -> None:
        """Take what there is if nothing was taken lately: the kernel signals it at once."""
        if self._took == self._seen:
            self._set(1)
        self._seen = self._took
        self._wait()

    def _set(self, mark: int) -> None:
        mark = max(mark, 1)
        if mark != self._mark and self._socket is not None:
            self._mark = mark
            with contextlib.suppress(OSError):  # closed meanwhile
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
