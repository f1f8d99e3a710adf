"""Connections, authorizations and snapshots ↔ JSON. Pure.

Guarantees: decoding what was encoded gives an equal value; anything else raises `Malformed`. A secret is
written in one place, `authorization_out`, and read in one, `authorization_in`.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from facade.link.strict import Fields, Malformed, as_number, number, pair
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, ConnectionSettings, Scope
from facade.wings import ControlSnapshot, Revocations


def connection_out(connection: Connection) -> dict[str, Any]:
    """A connection; it holds no secret."""
    settings = connection.settings
    return {
        "id": connection.id,
        "host": str(connection.host),
        "provider": connection.provider,
        "revision": connection.revision,
        "settings": {
            "insecure": settings.insecure,
            "ca_pem": settings.ca_pem,
            "auth_hosts": list(settings.auth_hosts),
            "proxy": settings.proxy,
        },
    }


def connection_in(value: object) -> Connection:
    """Raises Malformed."""
    fields = Fields(value, "connection")
    inner = Fields(fields.any("settings"), "settings")
    settings = ConnectionSettings(
        insecure=inner.flag("insecure"),
        ca_pem=inner.optional("ca_pem", inner.text),
        auth_hosts=inner.texts("auth_hosts"),
        proxy=inner.optional("proxy", inner.text),
    )
    inner.done()
    connection = Connection(
        id=fields.text("id"),
        host=fields.parsed("host", RegistryHost.parse),
        provider=fields.text("provider"),
        revision=fields.integer("revision"),
        settings=settings,
    )
    fields.done()
    return connection


def authorization_request_out(
    connection: Connection,
    scope: Scope,
    challenge: Sequence[Challenge],
    refused: str | None,
) -> dict[str, Any]:
    """The arguments of `ControlPort.authorization`."""
    return {
        "connection": connection_out(connection),
        "repository": None if scope.repository is None else str(scope.repository),
        "actions": list(scope.actions),
        "challenge": [
            {"scheme": each.scheme, "parameters": dict(each.parameters)} for each in challenge
        ],
        "refused": refused,
    }


AuthorizationRequest = tuple[Connection, Scope, tuple[Challenge, ...], str | None]


def authorization_request_in(value: object) -> AuthorizationRequest:
    """Raises Malformed."""
    fields = Fields(value, "authorization request")
    connection = connection_in(fields.any("connection"))
    scope = Scope(
        fields.optional("repository", lambda name: fields.parsed(name, Repository.parse)),
        fields.texts("actions"),
    )
    challenge = tuple(map(_challenge_in, fields.items("challenge")))
    refused = fields.optional("refused", fields.text)
    fields.done()
    return connection, scope, challenge, refused


def _challenge_in(value: object) -> Challenge:
    fields = Fields(value, "challenge")
    challenge = Challenge(fields.text("scheme"), fields.mapping("parameters"))
    fields.done()
    return challenge


def authorization_out(authorization: Authorization) -> dict[str, Any]:
    """The one value that holds a secret."""
    header, ends = authorization.header, authorization.expires_at
    return {
        "header": None if header is None else header.reveal(),
        "id": authorization.id,
        "expires_at": None if ends is None else number(ends),
    }


def authorization_in(value: object) -> Authorization:
    """Raises Malformed, which never repeats the header."""
    fields = Fields(value, "authorization")
    header = fields.optional("header", fields.text)
    authorization = Authorization(
        None if header is None else Secret(header),
        fields.text("id"),
        fields.optional("expires_at", fields.number),
    )
    fields.done()
    _encodable(header or "")
    return authorization


def _encodable(header: str) -> None:
    """JSON can say half a surrogate pair, which no header can; comparing such a secret would fail."""
    try:
        header.encode()
    except UnicodeEncodeError:
        raise Malformed("authorization: the header is no text") from None  # it would be repeated


def manifest_request_out(
    registry: RegistryHost, repository: Repository, digest: Digest
) -> dict[str, Any]:
    """The arguments of `ControlPort.closure_manifest`."""
    return {"registry": str(registry), "repository": str(repository), "digest": str(digest)}


def manifest_request_in(value: object) -> tuple[RegistryHost, Repository, Digest]:
    """Raises Malformed."""
    fields = Fields(value, "manifest request")
    request = (
        fields.parsed("registry", RegistryHost.parse),
        fields.parsed("repository", Repository.parse),
        fields.parsed("digest", Digest.parse),
    )
    fields.done()
    return request


def snapshot_out(snapshot: ControlSnapshot) -> dict[str, Any]:
    """The whole snapshot."""
    revocations = snapshot.revocations
    return {
        "generation": snapshot.generation,
        "connections": [connection_out(each) for each in snapshot.connections.values()],
        "devices": [[*name, number(at)] for name, at in revocations.devices.items()],
        "certificates": [list(each) for each in revocations.certificates],
    }


def snapshot_in(value: object) -> ControlSnapshot:
    """Raises Malformed; also when a host or device stands twice, where one entry would be lost."""
    fields = Fields(value, "snapshot")
    generation = fields.integer("generation")
    listed = [connection_in(each) for each in fields.items("connections")]
    connections = {each.host: each for each in listed}
    entries = [_device_in(each) for each in fields.items("devices")]
    devices = dict(entries)
    pairs = [_texts(pair(each, "certificate")) for each in fields.items("certificates")]
    certificates = frozenset(pairs)
    fields.done()
    if len(connections) != len(listed) or len(devices) != len(entries):
        raise Malformed("snapshot: a name stands twice")
    return ControlSnapshot(
        generation,
        MappingProxyType(connections),
        Revocations(MappingProxyType(devices), certificates),
    )


def _device_in(value: object) -> tuple[tuple[str, str], float]:
    if not isinstance(value, list) or len(value) != 3:
        raise Malformed("device: not of its kind")
    return _texts((value[0], value[1])), as_number(value[2], "device")


def _texts(value: tuple[object, object]) -> tuple[str, str]:
    first, second = value
    if not isinstance(first, str) or not isinstance(second, str):
        raise Malformed("snapshot: not a string")
    return first, second
