"""The gate in front of each registry: its circuit and its budget, and the waiting for both.

Guarantees: a request waits only as long as its own deadline allows, and is refused at once when
what it waits for lies beyond; then with the reason that closed the gate. Changed credentials or settings
(a connection's new revision) start afresh. What is cached never comes here. Each process has
gates of its own: with several workers there are as many probes.
"""

import asyncio
from collections.abc import Iterable, Mapping

import structlog
from multidict import MultiMapping

from facade.clock import Clock
from facade.errors import Upstream
from facade.reasons import Reason
from facade.upstream.budget import Budget, announced
from facade.upstream.circuit import Circuit, CircuitPolicy
from facade.upstream.connection import Connection
from facade.upstream.gate_port import GateObserver, NullGateObserver, Passage
from facade.upstream.retry import is_transient

log = structlog.get_logger(__name__)


class _State:
    """One host's gate, as long as its connection stays the same."""

    def __init__(self, connection: Connection, policy: CircuitPolicy) -> None:
        self.id = connection.id
        self.revision = connection.revision
        self.circuit = Circuit(policy)
        self.budgets: dict[str, Budget] = {}
        self.under_way: dict[str, int] = {}
        self._changed: asyncio.Future[None] | None = None

    def change(self) -> None:
        """Wake whoever waits."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None

    def changed(self) -> "asyncio.Future[None]":
        """Done at the next change."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed


class Gates:
    """Implements `Gate` for all connections of a process."""

    def __init__(
        self,
        *,
        clock: Clock,
        policy: CircuitPolicy | None = None,
        observer: GateObserver | None = None,
    ) -> None:
        self._clock = clock
        self._policy = policy or CircuitPolicy()
        self._observer = observer or NullGateObserver()
        self._states: dict[str, _State] = {}

    async def enter(self, connection: Connection, kind: str, within: float) -> Passage:
        deadline = self._clock.monotonic() + within
        while True:
            now = self._clock.monotonic()
            state = self._state(connection)
            wait, refusal = self._hindrance(state, connection, kind, now)
            if refusal is None:
                return self._pass(state, connection, kind, now)
            if now + (wait or 0.0) >= deadline:
                raise refusal
            await self._until(state, deadline - now if wait is None else wait)

    def heard(self, connection: Connection, kind: str, headers: MultiMapping[str]) -> None:
        said = announced(headers, self._clock.time())
        if said is None:
            return
        state = self._state(connection)
        budget = state.budgets.get(kind)
        if budget is None:
            budget = state.budgets[kind] = Budget()
        before = budget.nearly_used()
        budget.announce(said, self._clock.monotonic())
        if budget.nearly_used() and not before:
            log.warning(
                "upstream_budget_nearly_used",
                host=str(connection.host),
                kind=kind,
                remaining=said.remaining,
                limit=said.limit,
                seconds=said.window if said.reset is None else said.reset,
            )
        elif before:
            state.change()

    def trouble(self, connection: Connection) -> Upstream | None:
        """Why the circuit is open; None when it is closed."""
        circuit = self._state(connection).circuit
        return None if circuit.opened_at is None else circuit.refusal(self._clock.monotonic())

    def open_circuits(self, hosts: Iterable[str]) -> Mapping[str, bool]:
        """Of those `hosts` that were spoken to: whether the circuit is open."""
        found = {host: self._states.get(host) for host in hosts}
        return {host: one.circuit.opened_at is not None for host, one in found.items() if one}

    def budgets(self, hosts: Iterable[str]) -> Mapping[tuple[str, str], int]:
        """Of `hosts`: what is left, by host and kind of requests, where it is known."""
        return {
            (host, kind): budget.remaining
            for host in hosts
            if (state := self._states.get(host)) is not None
            for kind, budget in state.budgets.items()
            if budget.remaining is not None
        }

    def _state(self, connection: Connection) -> _State:
        host = str(connection.host)
        state = self._states.get(host)
        if (
            state is not None
            and state.id == connection.id
            and state.revision >= connection.revision
        ):
            return state  # also for what began before a change of credentials
        fresh = self._states[host] = _State(connection, self._policy)
        if state is not None:
            state.change()
        return fresh

    def _hindrance(
        self, state: _State, connection: Connection, kind: str, now: float
    ) -> tuple[float | None, Upstream | None]:
        """How long to wait (None: for the probe), and the refusal for who cannot."""
        budget = state.budgets.get(kind)
        if budget is not None:
            wait = budget.wait(now, state.under_way.get(kind, 0))
            if wait > 0:
                return wait, _used_up(connection, wait)
        until = state.circuit.wait(now)
        if until == 0.0:
            return 0.0, None
        return until, state.circuit.refusal(now)

    def _pass(self, state: _State, connection: Connection, kind: str, now: float) -> Passage:
        probe = state.circuit.enter()
        budget = state.budgets.get(kind)
        if budget is not None:
            budget.spend(now)
        state.under_way[kind] = state.under_way.get(kind, 0) + 1
        return _Passage(self, state, connection, kind, probe=probe)

    async def _until(self, state: _State, seconds: float) -> None:
        """Return at the next change, or after `seconds`."""
        alarm = asyncio.create_task(self._clock.sleep(seconds))
        try:
            await asyncio.wait((alarm, state.changed()), return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()

    def ended(self, state: _State, kind: str) -> None:
        """A passage is over."""
        state.under_way[kind] -= 1

    def opened(self, state: _State, connection: Connection, trouble: Upstream) -> None:
        """Tell that the circuit opened."""
        why = _why(trouble)
        self._observer.circuit_opened(str(connection.host), why)
        log.warning(
            "upstream_circuit_opened",
            host=str(connection.host),
            why=why,
            error=trouble.message,
            retry_after=trouble.retry_after,
        )

    def closed(self, connection: Connection, since: float | None) -> None:
        """Tell that it closed."""
        now = self._clock.monotonic()
        log.info(
            "upstream_circuit_closed",
            host=str(connection.host),
            seconds=round(now - (now if since is None else since), 1),
        )

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.monotonic()


class _Passage:
    __slots__ = ("_connection", "_gates", "_kind", "_over", "_probe", "_state")

    def __init__(
        self, gates: Gates, state: _State, connection: Connection, kind: str, *, probe: bool
    ) -> None:
        self._gates = gates
        self._state = state
        self._connection = connection
        self._kind = kind
        self._probe = probe

    def answered(self, status: int, retry_after: float | None) -> None:
        if is_transient(status):
            self.failed(_failing(self._connection, status, retry_after))
            return
        circuit = self._state.circuit
        since = circuit.opened_at
        self._gates.ended(self._state, self._kind)
        if circuit.succeeded(probe=self._probe):
            self._gates.closed(self._connection, since)
        if since is not None:
            self._state.change()

    def failed(self, error: Upstream) -> None:
        circuit = self._state.circuit
        self._gates.ended(self._state, self._kind)
        if circuit.failed(error, self._gates.now(), probe=self._probe):
            self._gates.opened(self._state, self._connection, error)
        if self._probe:
            self._state.change()

    def left(self) -> None:
        self._gates.ended(self._state, self._kind)
        self._state.circuit.left(probe=self._probe)
        if self._probe:
            self._state.change()


def _why(trouble: Upstream) -> str:
    if trouble.reason is Reason.UPSTREAM_RATE_LIMITED:
        return "rate-limited"
    return "failing" if trouble.status is not None else "unreachable"


def _failing(connection: Connection, status: int, retry_after: float | None) -> Upstream:
    if status == 429:
        return Upstream(
            f"{connection.host} limits the rate of requests (429). Try again later, or connect it "
            "with credentials that have a higher limit.",
            reason=Reason.UPSTREAM_RATE_LIMITED,
            status=status,
            retry_after=retry_after,
        )
    return Upstream(
        f"{connection.host} fails again and again ({status}). Try again later.",
        reason=Reason.UPSTREAM_REFUSED,
        status=status,
        retry_after=retry_after,
    )


def _used_up(connection: Connection, wait: float) -> Upstream:
    return Upstream(
        f"{connection.host} allows few more requests for now, so what is left of them is saved. "
        "Try again later, or connect it with credentials that have a higher limit.",
        reason=Reason.UPSTREAM_RATE_LIMITED,
        retry_after=wait,
    )
