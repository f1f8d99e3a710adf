"""Keeps N serving processes running, and ends them.

Guarantees: `begin` returns when all of them serve, or raises in the words of one that cannot; one that
ends unasked is logged with its status or signal, counted, and replaced on the same socket, at once
the first time (`restarts`); after `drain` none is left: who has not ended within the bound is
killed. Does not look whether a process that runs still answers: `stuck` does.

No process manager is used for this: circus and supervisor are daemons of their own that neither hand a
replacement its predecessor's socket nor tie a child's life to its parent's, gunicorn's arbiter forks, so
workers would share the memory that holds the sealing key, and systemd's socket units exist only there.
A worker needs its orders, its socket and its lifeline from the one process that has them.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Protocol

import structlog

from facade.clock import Clock
from facade.errors import FacadeError
from facade.listening import DRAIN_SECONDS
from facade.workers.process import WorkerProcess
from facade.workers.slot import Phase, Slot, Why
from facade.workers.sockets import withdraw

log = structlog.get_logger(__name__)

COMMAND = (sys.executable, "-m", "facade.app.worker")
CATCH_UP_SECONDS = 1.0
"""Between two tries of a replacement to take up what changed while it started."""
KILL_AFTER_SECONDS = DRAIN_SECONDS + 5.0
"""How long a draining worker is waited for."""


class WorkerObserver(Protocol):
    """Counts."""

    def worker_restarted(self, why: str) -> None: ...


class Workers:
    """The workers of one node.

    Arguments:
        sockets: one listening socket each; owned from here on.
        environ: what they may see of it is `process.passed_on`.
        command: what each runs.
        log: a descriptor for their logs, which outlives them; None = our stderr.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        *,
        environ: Mapping[str, str],
        clock: Clock,
        command: Sequence[str] = COMMAND,
        log: int | None = None,
    ) -> None:
        self._command = command
        self._log = log
        self.slots = tuple(Slot(index, sock) for index, sock in enumerate(sockets))
        self._environ = environ
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._observer: WorkerObserver | None = None
        self._retired: Callable[[int], None] = lambda _index: None
        self._up_to_date: Callable[[int], Awaitable[bool]] | None = None
        self._aside: set[asyncio.Task[None]] = set()
        self._ending = False

    @property
    def serving(self) -> int:
        """How many serve now."""
        return sum(slot.phase is Phase.SERVING for slot in self.slots)

    @property
    def settled(self) -> bool:
        """Whether nobody holds what may be old: one that is down will read what is current."""
        return all(
            slot.phase is Phase.DOWN or (slot.phase is Phase.SERVING and slot.current)
            for slot in self.slots
        )

    @property
    def crashing(self) -> tuple[Slot, ...]:
        """Those that keep ending."""
        now = self._clock.monotonic()
        return tuple(slot for slot in self.slots if slot.crashing(now))

    async def launch(self) -> None:
        """Start the processes; they import while the parent prepares. Raises Unavailable."""
        for slot in self.slots:
            slot.process = await self._launch(slot)

    async def begin(
        self,
        orders: Sequence[bytes],
        *,
        observer: WorkerObserver,
        retired: Callable[[int], None],
        up_to_date: Callable[[int], Awaitable[bool]],
    ) -> None:
        """Hand out `orders`; return when all serve.

        Arguments:
            observer: counts replacements.
            retired: told the index of each that ended, before it is replaced.
            up_to_date: has a replacement take up what changed while it started, and says whether
                it has; it is asked until then.

        Raises FacadeError when one cannot serve.
        """
        self._observer = observer
        self._retired = retired
        self._up_to_date = up_to_date
        for slot, order in zip(self.slots, orders, strict=True):
            slot.order = order
        await asyncio.gather(*map(self._begin, self.slots))
        self._tasks = [
            asyncio.create_task(self._keep(slot), name=f"worker {slot.index}")
            for slot in self.slots
        ]

    def reload(self) -> None:
        """Have those that serve read their files again; one that starts reads them anyway."""
        for slot in self.slots:
            if slot.process is not None and slot.phase is Phase.SERVING:
                slot.process.send(signal.SIGHUP)

    def replace(self, slot: Slot, why: Why) -> None:
        """End a worker that serves, so that another takes its place.

        A stuck one is killed; any other one takes no more connections and finishes what it sends.
        Does nothing once all are being ended.
        """
        process = slot.process
        if self._ending or process is None or slot.phase is not Phase.SERVING:
            return
        slot.phase, slot.why = Phase.LEAVING, why
        if why is Why.STUCK:
            process.send(signal.SIGKILL)
        else:
            process.send(signal.SIGTERM)
            self._do_aside(self._kill_late(slot, process))

    async def drain(self) -> None:
        """Take no more connections, let what runs finish, and end them."""
        await self._let_be()
        for slot in self.slots:
            slot.sock.close()
            if slot.process is not None:
                slot.process.send(signal.SIGTERM)
        await self._until_gone(KILL_AFTER_SECONDS)

    async def close(self) -> None:
        """End at once whatever is left."""
        await self._let_be()
        for slot in self.slots:
            slot.sock.close()
        await self._until_gone(0)

    async def _let_be(self) -> None:
        self._ending = True
        tasks = [*self._tasks, *self._aside]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    async def _until_gone(self, seconds: float) -> None:
        processes = [slot.process for slot in self.slots if slot.process is not None]
        ends = [asyncio.ensure_future(process.ended()) for process in processes]
        if not ends:
            return
        _done, running = await asyncio.wait(ends, timeout=seconds)
        if running:
            for process in processes:
                process.send(signal.SIGKILL)
            await asyncio.wait(running)
        for slot in self.slots:
            slot.process, slot.phase = None, Phase.DOWN

    async def _launch(self, slot: Slot) -> WorkerProcess:
        return await WorkerProcess.launch(self._command, slot.sock, self._environ, self._log)

    async def _begin(self, slot: Slot) -> None:
        assert slot.process is not None
        slot.phase = Phase.STARTING
        await slot.process.begin(slot.order)
        slot.phase, slot.since = Phase.SERVING, self._clock.monotonic()

    async def _keep(self, slot: Slot) -> None:
        """Replace the slot's process whenever it ends, until cancelled."""
        while True:
            assert slot.process is not None
            slot.ended = await slot.process.ended()
            lived = self._clock.monotonic() - slot.since
            log.error(
                "worker_ended",
                worker=slot.index,
                pid=slot.process.pid,
                status=slot.ended,
                reason=slot.why,
                seconds=lived,
            )
            await self._restart(slot, lived)

    async def _restart(self, slot: Slot, lived: float) -> None:
        while True:
            slot.phase = Phase.DOWN
            slot.restarts = slot.restarts.ended(lived)
            self._retired(slot.index)
            if self._observer is not None:
                self._observer.worker_restarted(slot.why)
            slot.why = Why.ENDED
            if slot.restarts.delay:
                withdraw(slot.sock)  # the others get its devices; none waits in a queue in vain
                log.error(
                    "worker_keeps_ending",
                    worker=slot.index,
                    status=slot.ended,
                    count=slot.restarts.in_a_row,
                    wait=slot.restarts.delay,
                )
                await self._clock.sleep(slot.restarts.delay)
            try:
                slot.process = await self._launch(slot)
                slot.current = self._up_to_date is None
                await self._begin(slot)
            except Exception as error:  # whatever it is, a worker that is not replaced is lost
                lived = 0.0
                if isinstance(error, FacadeError):
                    log.error("worker_not_started", worker=slot.index, error=error.message)
                else:
                    log.exception("worker_not_started", worker=slot.index)
                slot.ended, slot.why = "not started", Why.NOT_STARTED
                if slot.process is not None:
                    slot.process.send(signal.SIGKILL)
                    await slot.process.ended()
                continue
            self._do_aside(self._catch_up(slot, slot.process))
            log.info("worker_replaced", worker=slot.index, pid=slot.process.pid)
            return

    def _do_aside(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _kill_late(self, slot: Slot, process: WorkerProcess) -> None:
        await self._clock.sleep(KILL_AFTER_SECONDS)
        if slot.process is process:
            process.send(signal.SIGKILL)

    async def _catch_up(self, slot: Slot, process: WorkerProcess) -> None:
        """Ask until it is current, or is another process; its end is noticed meanwhile."""
        while self._up_to_date is not None and slot.process is process and not slot.current:
            try:
                done = await self._up_to_date(slot.index)
            except FacadeError as error:
                log.warning("worker_not_up_to_date", worker=slot.index, error=error.message)
            except Exception:  # it holds what is old until somebody asks again
                log.exception("worker_not_up_to_date", worker=slot.index)
            else:
                if done and slot.process is process:
                    slot.current = True
                    return
            await self._clock.sleep(CATCH_UP_SECONDS)
