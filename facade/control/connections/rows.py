"""A stored connection ↔ its row in the database.

Guarantees: `from_row` reads what `to_row` wrote. Neither opens the sealed value.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, bindparam, update

from facade.control.connections.model import StoredConnection
from facade.control.database.tables import connections
from facade.control.database.texts import text_of
from facade.oci.host import RegistryHost
from facade.upstream.connection import Connection, ConnectionSettings

_USE = ("last_ok", "last_error", "last_error_at")
"""The columns that say how a connection's use went."""
_NOTE_USE = text_of(update(connections).where(connections.c.id == bindparam("this")), _USE)


def to_row(stored: StoredConnection) -> dict[str, Any]:
    """The columns of the `connections` table."""
    connection = stored.connection
    return {
        "id": connection.id,
        "host": str(connection.host),
        "provider": connection.provider,
        "username": stored.username,
        "sealed": stored.sealed,
        "settings": settings_to_json(connection.settings),
        "revision": connection.revision,
        "created_by": stored.created_by,
        "created_at": stored.created_at,
        "changed_at": stored.changed_at,
        "last_ok": stored.last_ok,
        "last_error": stored.last_error,
        "last_error_at": stored.last_error_at,
    }


def from_row(row: Row[Any]) -> StoredConnection:
    """The value of a row."""
    connection = Connection(
        id=row.id,
        host=RegistryHost.parse(row.host),
        provider=row.provider,
        revision=row.revision,
        settings=settings_from_json(row.settings),
    )
    return StoredConnection(
        connection=connection,
        username=row.username,
        created_by=row.created_by,
        created_at=row.created_at,
        changed_at=row.changed_at,
        sealed=row.sealed,
        last_ok=row.last_ok,
        last_error=row.last_error,
        last_error_at=row.last_error_at,
    )


def settings_to_json(settings: ConnectionSettings) -> dict[str, Any]:
    """For the `settings` column."""
    return {
        "insecure": settings.insecure,
        "ca_pem": settings.ca_pem,
        "auth_hosts": list(settings.auth_hosts),
        "proxy": settings.proxy,
    }


def settings_from_json(document: dict[str, Any]) -> ConnectionSettings:
    """What `settings_to_json` wrote; keys that are missing have their default."""
    return ConnectionSettings(
        insecure=bool(document.get("insecure", False)),
        ca_pem=document.get("ca_pem"),
        auth_hosts=tuple(document.get("auth_hosts", ())),
        proxy=document.get("proxy"),
    )


def write_uses(transaction: sqlite3.Connection, used: Iterable[StoredConnection]) -> None:
    """Write how the use of each went into its row."""
    transaction.executemany(
        _NOTE_USE,
        [
            {"this": stored.connection.id, **{name: getattr(stored, name) for name in _USE}}
            for stored in used
        ],
    )
