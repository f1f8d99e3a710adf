"""The access log: one line for each answer of the device port.

Guarantees: a line says the same, in the same form, whichever way it takes. The plain ones (an answer as
it should be, JSON asked for) are put together here and written with their neighbours, at most
`GATHER_SECONDS` late, since a system call for each would cost more than the line; every other line
goes through structlog at once. What is put together here was parsed by a grammar of ours or is a word
of ours: it needs neither quoting nor a search for secrets (`redaction.PLAIN_KEYS`), and is bounded, so
that lines of several processes do not mix (`lines`).
"""

import asyncio
from dataclasses import dataclass
from typing import TextIO

import structlog

from facade.device import Device
from facade.observability.lines import writes
from facade.observability.logs import Lines, Stamp
from facade.oci.request import PullRequest

GATHER_SECONDS = 0.01
MAX_GATHERED = 128
_PLAIN_METHODS = frozenset({"GET", "HEAD"})


@dataclass(slots=True)  # not frozen: that would cost a microsecond a request
class Access:
    """What became of one request.

    Arguments:
        outcome: "served", "refused", "cut" or "left".
        size: body bytes that were sent.
        cache: "hit", "join", "miss" or "".
        reason, error: why it was refused or cut.
    """

    request_id: str
    method: str
    route: str
    status: int
    outcome: str
    size: int
    seconds: float
    device: Device | None = None
    pull: PullRequest | None = None
    cache: str = ""
    reason: str | None = None
    error: str | None = None


class AccessLog:
    """Writes lines. Loop only.

    Arguments:
        stream: takes finished JSON lines; None = every line takes structlog's way.
        worker: this serving process's number, which structlog's way adds by itself.
    """

    def __init__(self, stream: TextIO | None = None, worker: int | None = None) -> None:
        self._stream = stream
        self._worker = "" if worker is None else f'"worker": {worker}, '
        self._log = structlog.get_logger(__name__)
        self._stamp = Stamp()
        self._lines: list[str] = []

    @classmethod
    def configured(cls) -> "AccessLog":
        """As `logs.configure` set this process's logging up."""
        lines = structlog.get_config()["logger_factory"]
        ready_made = isinstance(lines, Lines) and lines.ready_made
        worker = structlog.contextvars.get_contextvars().get("worker")
        return cls(lines.stream if ready_made else None, worker)

    def write(self, access: Access, *, quiet: bool = False) -> None:
        """Write the line about `access`; a quiet one only where debugging is on."""
        if (
            self._stream is None
            or quiet
            or access.error is not None
            or access.method not in _PLAIN_METHODS
        ):
            write = self._log.debug if quiet else self._log.info
            write("request", **_fields(access))
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self.flush)
        self._lines.append(self._line(access))
        if len(self._lines) >= MAX_GATHERED:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered. Calling again does nothing."""
        if self._lines and self._stream is not None:
            for text in writes(self._lines):
                self._stream.write(text)
                self._stream.flush()
            self._lines.clear()

    def _line(self, access: Access) -> str:
        device, pull = access.device, access.pull
        whose = "" if device is None else f'"device": "{device}", '
        what = (
            ""
            if pull is None
            else f'"host": "{pull.host}", "repository": "{pull.repository}", '
            f'"digest": "{pull.digest}", '
        )
        cache = f'"cache": "{access.cache}", ' if access.cache else ""
        return (
            f'{{"method": "{access.method}", "route": "{access.route}", '
            f'"status": {access.status}, "outcome": "{access.outcome}", "bytes": {access.size}, '
            f'"seconds": {access.seconds:.4f}, {whose}{what}{cache}"event": "request", '
            f'"request_id": "{access.request_id}", {self._worker}"level": "info", '
            f'"timestamp": "{self._stamp.now()}"}}\n'
        )


def _fields(access: Access) -> dict[str, object]:
    fields: dict[str, object] = {
        "method": access.method,
        "route": access.route,
        "status": access.status,
        "outcome": access.outcome,
        "bytes": access.size,
        "seconds": round(access.seconds, 4),
        "request_id": access.request_id,
    }
    if access.device is not None:
        fields["device"] = str(access.device)
    if access.pull is not None:
        fields["host"] = str(access.pull.host)
        fields["repository"] = str(access.pull.repository)
        fields["digest"] = str(access.pull.digest)
    if access.cache:
        fields["cache"] = access.cache
    if access.error is not None:
        fields["reason"] = access.reason
        fields["error"] = access.error
    return fields
