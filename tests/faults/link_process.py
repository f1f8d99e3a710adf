"""A control side in a process of its own, to be killed and stopped: run by `test_link_processes`.

`python link_process.py SOCKET`: serves a scripted `ControlPort`. Reads lines from stdin: `revoke NAME`,
`connect HOST`, `remove HOST`. Prints `ready`, `asked` for each authorization for `slow/app` (never
answered), and `reported AT` for each event.
"""

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

from facade.clock import SystemClock
from facade.link.control_server import control_app
from facade.link.unix import served
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, Scope
from facade.wings import ControlSnapshot, Event, Revocations

SLOW = Scope(Repository("slow/app"))


class Scripted:
    """A control port that does what it is told on stdin."""

    def __init__(self) -> None:
        self.now = ControlSnapshot(1)

    def obey(self, line: str) -> None:
        verb, _, name = line.strip().partition(" ")
        connections = dict(self.now.connections)
        revocations = self.now.revocations
        if verb == "revoke":
            devices = {**revocations.devices, ("dev", name): float("inf")}
            revocations = Revocations(devices)
        elif verb == "connect":
            host = RegistryHost.parse(name)
            connections[host] = Connection(f"id-{name}", host, "anonymous")
        else:
            del connections[RegistryHost.parse(name)]
        self.now = replace(
            self.now,
            generation=self.now.generation + 1,
            connections=connections,
            revocations=revocations,
        )

    def snapshot(self) -> ControlSnapshot:
        return self.now

    def silent_seconds(self) -> float:
        return 0.0

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        if scope == SLOW:
            print("asked", flush=True)
            await asyncio.Event().wait()
        return Authorization(Secret(f"Bearer {os.getpid()}"))

    async def closure_manifest(
        self, registry: RegistryHost, repository: Repository, digest: Digest
    ) -> bytes | None:
        return None

    def report(self, event: Event) -> None:
        print(f"reported {event.at:g}", flush=True)


async def main(path: Path) -> None:
    port = Scripted()
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    async with served(control_app(port, clock=SystemClock()), path, allowed={os.geteuid()}):
        print("ready", flush=True)
        while line := await lines.readline():
            port.obey(line.decode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
