"""The operator port on a free port of loopback, in a thread, and the command line against it.

Guarantees: the server answers when the context is entered and is gone when it is left; the command runs
in this process with its own streams, so a test sees exactly what went where.
"""

import asyncio
import io
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

from facade.cli.main import main
from facade.cli.session import Session

START_SECONDS = 60.0


@contextmanager
def serving(app: web.Application, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve `app`, over https with `tls`; gives its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="operator-port")
    thread.start()
    server = TestServer(app, scheme="https" if tls else "http")
    try:
        asyncio.run_coroutine_threadsafe(server.start_server(ssl=tls), loop).result(START_SECONDS)
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(START_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_SECONDS)
        loop.close()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    stdout: str
    stderr: str


@dataclass
class CommandLine:
    """Runs `facade …` with an environment of its own.

    Arguments:
        terminal: stdout and stderr are terminals.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    terminal: bool = False

    def __call__(self, *argv: str, stdin: str = "") -> Ran:
        stream = Terminal if self.terminal else io.StringIO
        out, err = stream(), stream()
        session = Session(environ=self.environ, stdin=io.StringIO(stdin), stdout=out, stderr=err)
        return Ran(main(argv, session), out.getvalue(), err.getvalue())
