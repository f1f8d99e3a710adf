"""A real `facade up` as a child process, and its command line, for tests from the outside.

Guarantees: every port is a free one of loopback; the process is ended by its PID; what it logged is
kept for assertions and shown when it fails to start. Nothing is imported from the product.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

READY_SECONDS = 120.0
STOP_SECONDS = 20.0
COMMAND_SECONDS = 90.0
_READY = re.compile(
    r"ready device=https://(?P<device>\S+) operator=(?P<operator>\S+) metrics=(?P<metrics>\S+)"
)


@dataclass(frozen=True)
class Finished:
    """A finished command: exit code and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.stdout)


async def run(
    *command: str | Path,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = COMMAND_SECONDS,
) -> Finished:
    """Run a command to its end (at most `timeout` seconds) and give what it printed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


def _children(pid: int) -> list[int]:
    found = [
        int(child)
        for children in Path(f"/proc/{pid}/task").glob("*/children")
        for child in children.read_text().split()
    ]
    return found + [further for child in found for further in _children(child)]


class FacadeProcess:
    """One state folder and the `facade up` that runs on it.

    Arguments:
        prefix: a command that `facade up` is given to, to be executed in its place.
    """

    DEFAULTS: ClassVar[Mapping[str, str]] = {
        "FACADE_DEVICE__LISTEN": "127.0.0.1:0",
        "FACADE_OPERATOR__LISTEN": "127.0.0.1:0",
        "FACADE_METRICS__LISTEN": "127.0.0.1:0",
        "FACADE_UPSTREAM__ALLOW_CIDRS": '["127.0.0.0/8", "::1/128"]',
        "FACADE_LOG__FORMAT": "json",
    }

    def __init__(
        self, state: Path, *, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> None:
        self.state = state
        self._prefix = prefix
        self._env = {**self.DEFAULTS, **(env or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._tail: asyncio.Task[None] | None = None
        self._log = bytearray()
        self.device = ""  # HOST:PORT
        self.operator = ""  # URL
        self.metrics = ""  # URL

    @property
    def pid(self) -> int:
        """The process that `start` made."""
        assert self._process is not None
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it and its processes have used so far, user and system (proc(5))."""
        ticks = 0
        for pid in [self.pid, *_children(self.pid)]:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    @property
    def log(self) -> str:
        """Everything it wrote to stderr so far."""
        return self._log.decode(errors="replace")

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log lines, parsed."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def use_device_port(self, port: int) -> None:
        """From the next start on, the device port is this one of loopback."""
        self._env["FACADE_DEVICE__LISTEN"] = f"127.0.0.1:{port}"

    async def start(self, *arguments: str) -> None:
        """Start it and wait for the `ready` line."""
        self._process = await asyncio.create_subprocess_exec(
            *self._prefix,
            sys.executable,
            "-m",
            "facade.cli.main",
            "up",
            "--state",
            str(self.state),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self._env},
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._tail = asyncio.create_task(self._read(self._process.stderr))
        try:
            async with asyncio.timeout(READY_SECONDS):
                line = (await self._process.stdout.readline()).decode()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"facade up was not ready in time:\n{self.log}") from None
        except asyncio.CancelledError:
            await self.kill()
            raise
        match = _READY.match(line)
        if match is None:
            await self._process.wait()
            await self._tail
            raise AssertionError(f"facade up said {line!r}:\n{self.log}")
        self.device, self.operator, self.metrics = (
            match["device"],
            match["operator"],
            match["metrics"],
        )

    async def stop(self) -> int:
        """SIGTERM, wait, and give the exit status."""
        return await self._end(signal.SIGTERM)

    async def logged(self, words: str, within: float = 10.0) -> None:
        """Return when it has logged `words`; fail after `within` seconds."""
        async with asyncio.timeout(within):
            while words not in self.log:  # noqa: ASYNC110 - its log is no event of ours
                await asyncio.sleep(0.05)

    async def interrupt(self) -> int:
        """SIGINT (Ctrl-C), wait, and give the exit status."""
        return await self._end(signal.SIGINT)

    async def kill(self) -> int:
        """SIGKILL, wait, and give the exit status."""
        return await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise AssertionError(f"facade up did not stop:\n{self.log[-4000:]}") from None
        finally:
            if self._tail is not None:
                await self._tail
        return code

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(65536):
            self._log += chunk

    async def cli(self, *arguments: str | Path, stdin: str = "") -> Finished:
        """Run `facade ARGUMENTS` against this state folder."""
        return await run(
            sys.executable,
            "-m",
            "facade.cli.main",
            *arguments,
            stdin=stdin,
            env={"FACADE_STATE": str(self.state)},
        )

    async def must(self, *arguments: str | Path, stdin: str = "") -> Finished:
        """`cli`, and it must succeed."""
        finished = await self.cli(*arguments, stdin=stdin)
        assert finished.code == 0, f"facade {arguments}: {finished}\n{self.log[-4000:]}"
        return finished


@contextlib.asynccontextmanager
async def facade_up(
    state: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> AsyncIterator[FacadeProcess]:
    """A running `facade up` on `state`, ended on the way out."""
    facade = FacadeProcess(state, env=env, prefix=prefix)
    await facade.start(*arguments)
    try:
        yield facade
    finally:
        await facade.kill()


def lines(text: str) -> Sequence[str]:
    """The non-empty lines of `text`."""
    return [line for line in text.splitlines() if line.strip()]
