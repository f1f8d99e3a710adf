"""The connections: rows in the database, and the same as a snapshot in memory.

Guarantees: reading never touches the database; the snapshot is an immutable value, replaced in one
assignment after the change is committed, and its generation counts up with every change that
matters upstream; a secret is opened only by `secrets`, per use. An id is never used again, so
whatever was cached for a removed connection is dead. Does not guarantee that another process
sees a change: one process owns the store.
"""

import asyncio
import json
import secrets as random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from sqlalchemy import delete, insert, select, update

from facade.clock import Clock
from facade.control.connections.model import StoredConnection
from facade.control.connections.rows import from_row, settings_to_json, to_row, write_uses
from facade.control.connections.sealing import Sealer
from facade.control.credentials.model import Prepared, StoredSecrets
from facade.control.database.engine import Database
from facade.control.database.tables import connections as table
from facade.errors import Conflict, Denied, NotFound
from facade.oci.host import RegistryHost
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.connection import Connection, ConnectionSettings
from facade.wings import ConnectionUsed

SEALED_FIELD = "secrets"
"""The name that a connection's sealed value is bound to, besides its id."""


@dataclass(frozen=True, slots=True)
class ConnectionSnapshot:
    """All connections at one moment."""

    generation: int = 0
    by_host: Mapping[RegistryHost, Connection] = field(default_factory=dict)


class ConnectionStore:
    """Stores connections. `load` comes first.

    Arguments:
        sealer: for the purpose "connections".
        forget: called with the id of a connection whose credentials changed or that is gone.
    """

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        clock: Clock,
        *,
        forget: Callable[[str], None] | None = None,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._forget = [forget] if forget else []
        self.on_change: Callable[[], None] = lambda: None
        """Called when the snapshot is another one."""
        self._stored: Mapping[RegistryHost, StoredConnection] = {}
        self._ids: Mapping[str, RegistryHost] = {}
        self._snapshot = ConnectionSnapshot()
        self._lock = asyncio.Lock()  # commits and their snapshots come in the same order

    def on_forget(self, forget: Callable[[str], None]) -> None:
        """Call `forget` too (the broker is made after the store)."""
        self._forget.append(forget)

    async def load(self) -> None:
        """Read everything. Raises Unavailable."""
        async with self._lock:
            async with self._database.read() as connection:
                rows = (await connection.execute(select(table))).all()
            self._publish({stored.host: stored for stored in map(from_row, rows)})

    def snapshot(self) -> ConnectionSnapshot:
        """All connections, without any secret."""
        return self._snapshot

    def list(self) -> tuple[StoredConnection, ...]:
        """All connections, by host."""
        return tuple(sorted(self._stored.values(), key=lambda stored: str(stored.host)))

    def get(self, host: RegistryHost) -> StoredConnection:
        """The connection to `host`. Raises NotFound, saying how to connect it."""
        stored = self._stored.get(host)
        if stored is None:
            raise NotFound(
                f"{host} is not connected. Connect it with: facade registry add {host} --anonymous "
                "(or --username U)",
                reason=Reason.HOST_NOT_CONNECTED,
            )
        return stored

    def current(self, connection_id: str) -> Connection | None:
        """The connection with that id as it is now, None when it is gone."""
        host = self._ids.get(connection_id)
        return None if host is None else self._snapshot.by_host[host]

    def secrets(self, connection_id: str) -> StoredSecrets:
        """What its provider needs, opened.

        Raises Denied when the connection is gone, Integrity or Unavailable when its secret does
        not open.
        """
        host = self._ids.get(connection_id)
        if host is None:
            raise Denied("The registry is not connected.", reason=Reason.HOST_NOT_CONNECTED)
        stored = self._stored[host]
        if stored.sealed is None:
            return StoredSecrets(stored.username, {})
        fields = json.loads(self._sealer.open(stored.sealed, _bound(stored.connection)))
        return StoredSecrets(stored.username, {key: Secret(fields[key]) for key in fields})

    async def add(
        self,
        host: RegistryHost,
        provider: str,
        prepared: Prepared,
        settings: ConnectionSettings,
        *,
        actor: str,
    ) -> StoredConnection:
        """Store a new connection. Raises Conflict when the host is connected already."""
        async with self._lock:
            if host in self._stored:
                raise Conflict(
                    f"{host} is connected already. To change its credentials or settings: facade registry "
                    f"rotate {host}"
                )
            now = self._clock.time()
            connection = Connection(random.token_hex(16), host, provider, 1, settings)
            stored = StoredConnection(
                connection=connection,
                username=prepared.username,
                created_by=actor,
                created_at=now,
                changed_at=now,
                sealed=self._seal(connection, prepared),
            )
            async with self._database.write() as transaction:
                await transaction.execute(insert(table).values(to_row(stored)))
            self._publish({**self._stored, host: stored})
            return stored

    async def change(
        self,
        host: RegistryHost,
        *,
        prepared: Prepared | None = None,
        settings: ConnectionSettings | None = None,
    ) -> StoredConnection:
        """Replace the credentials, the settings, or both; the revision counts up.

        Raises NotFound, Integrity or Unavailable when the secret that stays does not open.
        """
        async with self._lock:
            old = self.get(host)
            connection = replace(
                old.connection,
                revision=old.connection.revision + 1,
                settings=old.connection.settings if settings is None else settings,
            )
            stored = replace(
                old,
                connection=connection,
                changed_at=self._clock.time(),
                last_error=None,
                last_error_at=None,
            )
            if prepared is not None:
                sealed = self._seal(connection, prepared)
                stored = replace(stored, username=prepared.username, sealed=sealed)
            elif old.sealed is not None:
                text = self._sealer.open(old.sealed, _bound(old.connection))
                stored = replace(stored, sealed=self._sealer.seal(text, _bound(connection)))
            async with self._database.write() as transaction:
                await transaction.execute(
                    update(table).where(table.c.id == connection.id).values(to_row(stored))
                )
            self._publish({**self._stored, host: stored})
        self._forgotten(connection.id)
        return stored

    async def remove(self, host: RegistryHost) -> StoredConnection:
        """Forget the connection and its secret. Raises NotFound."""
        async with self._lock:
            stored = self.get(host)
            async with self._database.write() as transaction:
                await transaction.execute(delete(table).where(table.c.id == stored.connection.id))
            self._publish({key: value for key, value in self._stored.items() if key != host})
        self._forgotten(stored.connection.id)
        return stored

    async def used(self, uses: Iterable[ConnectionUsed]) -> None:
        """Note when connections worked or failed, in the order of time. Raises Unavailable."""
        async with self.noting(uses) as note:
            await self._database.write_at_once(note)

    @asynccontextmanager
    async def noting(
        self, uses: Iterable[ConnectionUsed]
    ) -> AsyncIterator[Callable[[sqlite3.Connection], None]]:
        """Within: what writes, in the caller's transaction, when connections worked or failed.

        When the block raises, which it does when its transaction failed, nothing was noted.
        """
        ordered = sorted(uses, key=lambda use: use.at)
        async with self._lock:
            changed: dict[RegistryHost, StoredConnection] = {}
            for use in ordered:
                if (host := self._ids.get(use.connection_id)) is not None:
                    changed[host] = changed.get(host, self._stored[host]).after(use)

            yield lambda transaction: write_uses(transaction, changed.values())
            self._stored = MappingProxyType({**self._stored, **changed})

    async def reseal(self, sealer: Sealer) -> int:
        """Seal everything that is not sealed with the primary key of `sealer` with it.

        Arguments:
            sealer: must still open what is stored; it is used from now on.

        Returns how many were sealed again; all or none are. Raises Integrity or Unavailable
        when one does not open.
        """
        async with self._lock:
            changed: dict[RegistryHost, StoredConnection] = {}
            for host, stored in self._stored.items():
                if stored.sealed is None or sealer.is_current(stored.sealed):
                    continue
                bound = _bound(stored.connection)
                sealed = sealer.seal(sealer.open(stored.sealed, bound), bound)
                changed[host] = replace(stored, sealed=sealed)
            async with self._database.write() as transaction:
                for stored in changed.values():
                    await transaction.execute(
                        update(table)
                        .where(table.c.id == stored.connection.id)
                        .values(sealed=stored.sealed)
                    )
            self._sealer = sealer
            self._stored = MappingProxyType({**self._stored, **changed})
            return len(changed)

    def _seal(self, connection: Connection, prepared: Prepared) -> str | None:
        if not prepared.fields:
            return None
        fields = {key: secret.reveal() for key, secret in prepared.fields.items()}
        return self._sealer.seal(json.dumps(fields), _bound(connection))

    def _publish(self, stored: Mapping[RegistryHost, StoredConnection]) -> None:
        self._stored = MappingProxyType(dict(stored))
        self._ids = {value.connection.id: host for host, value in stored.items()}
        self._snapshot = ConnectionSnapshot(
            generation=self._snapshot.generation + 1,
            by_host=MappingProxyType(
                {host: value.connection for host, value in self._stored.items()}
            ),
        )
        self.on_change()

    def _forgotten(self, connection_id: str) -> None:
        for forget in self._forget:
            forget(connection_id)


def _bound(connection: Connection) -> tuple[str, ...]:
    """What a sealed value opens with: its row, and everything that says where it is sent.

    So whoever writes to the database cannot have a secret sent to another host, realm or proxy,
    or over plain http: it does not open any more.
    """
    settings = settings_to_json(connection.settings)
    sent = {key: value for key, value in sorted(settings.items()) if value}
    return (
        connection.id,
        SEALED_FIELD,
        str(connection.host),
        connection.provider,
        json.dumps(sent, ensure_ascii=True),
    )
