"""Which challenges the serving side may bring: a stored password does not leave on its word alone.

Guarantees: what a serving process says a registry asked for never makes this side hand out a stored
password as it is (Basic), unless the registry, asked from here, wants just that; tokens are given for
pulling only. So a serving process that was taken over gets short-lived tokens of a registry that has a
token service, never the password behind them. Does not hide which repositories a connection can read.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from facade.control.credentials.schemes import choose
from facade.errors import Denied, Upstream
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Authorizer, Connection, Scope

log = structlog.get_logger(__name__)

MAX_WITNESSED = 10_000

Ask = Callable[[Connection, Repository | None], Awaitable[tuple[Challenge, ...]]]
"""`upstream.probe.ask_for_challenge`."""


class Connections(Protocol):
    """`connections.store.ConnectionStore`."""

    def current(self, connection_id: str) -> Connection | None: ...


class WitnessedAuthorizer:
    """Implements `facade.upstream.connection.Authorizer` for those who are not believed.

    Arguments:
        broker: believes every challenge.
        keeps_password: whether a provider of that name presents what is stored as it is.
        ask: asks the registry from this side.
    """

    def __init__(
        self,
        broker: Authorizer,
        *,
        connections: Connections,
        keeps_password: Callable[[str], bool],
        ask: Ask,
    ) -> None:
        self._broker = broker
        self._connections = connections
        self._keeps_password = keeps_password
        self._ask = ask
        self._witnessed: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._asking: dict[tuple[str, int], asyncio.Task[tuple[Challenge, ...]]] = {}

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        """As the port says; besides, raises Denied for other actions than pull."""
        if scope.actions != ("pull",):
            raise Denied("The serving side pulls; it gets no other rights.", reason=Reason.INTERNAL)
        current = self._connections.current(connection.id)
        if current is not None and self._is_delicate(current, challenge):
            challenge = await self._confirmed(current, scope, challenge)
        return await self._broker.authorization(
            connection, scope, challenge=challenge, refused=refused
        )

    def _is_delicate(self, connection: Connection, challenge: tuple[Challenge, ...]) -> bool:
        chosen = choose(challenge)
        return (
            chosen is not None
            and chosen.scheme == "basic"
            and self._keeps_password(connection.provider)
            and (connection.id, connection.revision) not in self._witnessed
        )

    async def _confirmed(
        self, connection: Connection, scope: Scope, challenge: tuple[Challenge, ...]
    ) -> tuple[Challenge, ...]:
        """What the registry says itself: Basic as well, or what it wants instead."""
        heard = await self._heard(connection, scope.repository)
        chosen = choose(heard)
        if chosen is not None and chosen.scheme == "basic":
            self._witnessed[connection.id, connection.revision] = None
            if len(self._witnessed) > MAX_WITNESSED:
                self._witnessed.popitem(last=False)
            return challenge
        log.warning("challenge_not_confirmed", host=str(connection.host))
        if chosen is None:
            raise Upstream(
                f"{connection.host} is said to want a user name and a password, and did not ask "
                "this side for them. They were not sent.",
                reason=Reason.UPSTREAM_REFUSED,
                status=401,
            )
        return heard

    async def _heard(
        self, connection: Connection, repository: Repository | None
    ) -> tuple[Challenge, ...]:
        """One question at a time for each connection; who leaves does not end it for the others."""
        key = (connection.id, connection.revision)
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._question(connection, repository), name="challenge")
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        return await asyncio.shield(task)

    async def _question(
        self, connection: Connection, repository: Repository | None
    ) -> tuple[Challenge, ...]:
        return await self._ask(connection, repository)

    def _asked(self, key: tuple[str, int], task: "asyncio.Task[tuple[Challenge, ...]]") -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # seen, also when whoever waited has left

    async def close(self) -> None:
        """End the questions that are open."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
