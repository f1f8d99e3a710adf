"""One serving process, seen from its parent.

Guarantees: it is started with an environment of listed variables only, so no `FACADE_…` secret comes
with it; it inherits its listening socket, its pipes and stderr, and nothing else; it is
its own process group, so Ctrl-C reaches it only through the parent, which orders the drain. It
dies with its parent: `lifeline` says how.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from facade.errors import Invalid, Unavailable
from facade.workers.signs import Signs

READY_SECONDS = 60.0
"""From order to answering. A start takes one or two; a machine under load takes more."""
MAX_REPORT_BYTES = 64 * 1024
_PASSED = frozenset(
    {"PATH", "LANG", "LANGUAGE", "TZ", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {"LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_ARENA_MAX", "OPENSSL_CONF"}
    # A worker sends its own spans, with what the collector wants to see.
    | {"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_CERTIFICATE"}
)
_PASSED_PREFIXES = ("LC_", "PYTHON")


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the environment that a worker gets."""
    return {
        name: value
        for name, value in environ.items()
        if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    }


class WorkerProcess:
    """A started process that waits for its order, or works."""

    def __init__(self, process: asyncio.subprocess.Process, signs: Signs) -> None:
        self._process = process
        self._signs = signs

    @classmethod
    async def launch(
        cls,
        command: Sequence[str],
        sock: socket.socket,
        environ: Mapping[str, str],
        log: int | None = None,
    ) -> "WorkerProcess":
        """Start `command`; its imports go on while the parent does other things.

        Arguments:
            command: is given the descriptor for its signs of life as one argument more.
            log: a descriptor for its log; None = our stderr.

        Raises Unavailable when the machine gives no more processes.
        """
        signs = Signs()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(signs.given),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                pass_fds=(sock.fileno(), signs.given),
                env=passed_on(environ),
                process_group=0,
                limit=MAX_REPORT_BYTES,
            )
        except OSError as error:
            signs.close()
            raise Unavailable(
                f"A serving process cannot be started: {error.strerror or error}."
            ) from error
        except BaseException:
            signs.close()
            raise
        finally:
            signs.handed_over()
        return cls(process, signs)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def begin(self, order: bytes) -> None:
        """Hand the order over and return when it serves.

        Raises Invalid with the worker's own words when it cannot, Unavailable when it ended
        without any or says nothing for `READY_SECONDS`.
        """
        assert self._process.stdin is not None
        try:
            async with asyncio.timeout(READY_SECONDS):
                with contextlib.suppress(ConnectionError):  # it ended: its report says why
                    self._process.stdin.write(order)
                    await self._process.stdin.drain()
                report = await self.report()
                if report.get("ready"):
                    return
                if not report.get("error"):
                    raise Unavailable(
                        f"A serving process ended at its start ({await self.ended()})."
                    )
        except TimeoutError:
            raise Unavailable(
                f"A serving process (PID {self.pid}) did not answer within {READY_SECONDS:.0f} s."
            ) from None
        raise Invalid(str(report["error"]))

    async def report(self) -> dict[str, Any]:
        """The next thing it says; {} when it will say nothing more."""
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
            report = json.loads(line) if line else {}
        except (ValueError, RecursionError):  # too long, no JSON, nested too deep: not ours
            return {}
        return report if isinstance(report, dict) else {}

    def sign(self) -> float | None:
        """How many seconds ago it had heard the control side when it last gave a sign of life; None: it gave
        none since it was asked last.
        """
        return self._signs.last()

    async def ended(self) -> str:
        """Return when it has ended: "status N", or the signal's name."""
        code = await self._process.wait()
        self._signs.close()
        if code >= 0:
            return f"status {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended gets none."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def descriptor_of(order_fd: int) -> socket.socket:
    """The inherited socket `order_fd`, in the worker."""
    os.set_inheritable(order_fd, False)
    sock = socket.socket(fileno=order_fd)
    sock.setblocking(False)
    return sock
