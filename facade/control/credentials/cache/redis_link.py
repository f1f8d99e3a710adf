"""One Redis (server, cluster, or the master that sentinels name), spoken to without ever waiting long.

Guarantees: a command takes at most COMMAND_SECONDS, connecting included; after one that failed, all
others fail at once until a task of its own has found Redis answering again, so that a Redis that
hangs or is gone delays one request in its whole outage. Keeps nothing. Does not guarantee that a
command that failed was not carried out.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from facade.clock import Clock
from facade.config.redis_url import RedisKind, RedisUrl
from facade.control.credentials.observer import NullSharedCacheObserver, SharedCacheObserver

log = structlog.get_logger(__name__)

COMMAND_SECONDS = 0.5
"""What a request loses, once, when Redis hangs."""
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 5.0
"""Redis is used again at most this long (and a little) after it is back."""
MAX_CONNECTIONS = 64
PROBE_MILLISECONDS = 1000
_PROBE = "facade:probe"

T = TypeVar("T")
Client = Redis | RedisCluster


class RedisDownError(Exception):
    """Redis cannot be asked just now, or not this. Stays within this room: the cache turns it into a miss."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The client to use, and those that must be closed with it (the sentinels')."""

    main: Client
    others: tuple[Redis, ...] = ()


def redis_client(url: RedisUrl) -> Clients:
    """Clients that connect when they are first used."""
    options: dict[str, Any] = {
        "username": url.username,
        "password": None if url.password is None else url.password.reveal(),
        "socket_timeout": COMMAND_SECONDS,
        "socket_connect_timeout": COMMAND_SECONDS,
        # One more try, at once: a pooled connection may have died with the server it led to.
        "retry": Retry(NoBackoff(), 1),
        "max_connections": MAX_CONNECTIONS,
    }
    if url.tls:
        options |= {"ssl": True, "ssl_ca_certs": url.ca_file}
    host, port = url.hosts[0]
    if url.kind is RedisKind.CLUSTER:
        from redis.asyncio.cluster import ClusterNode  # noqa: PLC0415 - most have no cluster

        nodes = [ClusterNode(name, number) for name, number in url.hosts]
        return Clients(RedisCluster(startup_nodes=nodes, **options))
    options["db"] = url.database
    if url.kind is RedisKind.SENTINEL:
        own: dict[str, Any] = {key: options[key] for key in ("ssl", "ssl_ca_certs") if url.tls}
        own |= {key: options[key] for key in ("socket_timeout", "socket_connect_timeout")}
        if url.sentinel_password is not None:
            own["password"] = url.sentinel_password.reveal()
        sentinel: Any = Sentinel(url.hosts, sentinel_kwargs=own, **options)  # type: ignore[no-untyped-call]
        return Clients(sentinel.master_for(url.service), tuple(sentinel.sentinels))
    return Clients(Redis(host=host, port=port, **options))


class RedisLink:
    """The only way to the client.

    Arguments:
        clients: closed with the link.
        places: the servers, for messages.
        seconds: how long a command may take.
    """

    def __init__(
        self,
        clients: Clients,
        places: str,
        clock: Clock,
        *,
        observer: SharedCacheObserver | None = None,
        seconds: float = COMMAND_SECONDS,
    ) -> None:
        self._clients = clients
        self._places = places
        self._clock = clock
        self._observer = observer or NullSharedCacheObserver()
        self._seconds = seconds
        self._probing: asyncio.Task[None] | None = None
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)  # the client's pool would raise instead

    @property
    def up(self) -> bool:
        """Whether the last command was answered."""
        return self._probing is None

    async def start(self) -> None:
        """Find out, once, whether Redis answers; it need not."""
        self._observer.redis_up(True)
        with contextlib.suppress(RedisDownError):
            await self.run(_probe)

    async def close(self) -> None:
        """Stop looking for Redis, and close the connections."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        for client in (self._clients.main, *self._clients.others):
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await client.aclose()

    async def run(
        self, command: Callable[[Any], Awaitable[T]], *, seconds: float | None = None
    ) -> T:
        """Run `command` with the client. Raises RedisDownError, at once when Redis is known to be down.

        Arguments:
            command: one round trip; the client is untyped, as its methods' types are loose.
            seconds: when it is more than one.
        """
        if self._probing is not None:
            raise RedisDownError
        try:
            return await self._within(command, seconds)
        except (RedisError, OSError, TimeoutError) as error:
            if _of_the_server(error):
                self._went_down(error)
            raise RedisDownError from error

    async def _within(
        self, command: Callable[[Any], Awaitable[T]], seconds: float | None = None
    ) -> T:
        async with asyncio.timeout(self._seconds if seconds is None else seconds):
            async with self._slots:
                return await command(self._clients.main)

    def _went_down(self, error: Exception) -> None:
        if self._probing is None:
            # The type alone: redis-py's messages quote URLs and commands.
            why = type(error).__name__
            log.warning("redis_down", host=self._places, error=why)
            self._observer.redis_up(False)
            self._probing = asyncio.create_task(self._look_for_it(), name="redis probe")

    async def _look_for_it(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            await self._clock.sleep(pause)
            try:
                await self._within(_probe)
            except (RedisError, OSError, TimeoutError):
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            else:
                break
        self._probing = None
        log.warning("redis_up", host=self._places)
        self._observer.redis_up(True)


def _of_the_server(error: Exception) -> bool:
    """Whether it will meet other commands too: not if it is about one key's type, or, which redis-py gives
    without its code, about one command (ERR). DENIED, MISCONF, NOREPLICAS and their like are the server's.
    """
    if type(error) is not ResponseError:
        return True
    code = str(error).partition(" ")[0]
    return code.isupper() and code != "WRONGTYPE"


async def _probe(client: Any) -> None:
    """A write, since a replica or a full server answers reads; and as a cluster takes it too."""
    await client.set(_PROBE, "1", px=PROBE_MILLISECONDS)


async def problem(url: RedisUrl) -> str | None:
    """Why Redis cannot be used, in a word or two, found out now; None when it can."""
    clients = redis_client(url)
    try:
        async with asyncio.timeout(4 * COMMAND_SECONDS):
            await _probe(clients.main)
    except (RedisError, OSError, TimeoutError) as error:
        return type(error).__name__
    finally:
        for client in (clients.main, *clients.others):
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await client.aclose()
    return None
