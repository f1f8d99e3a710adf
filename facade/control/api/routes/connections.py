"""Connections, and looking into a connected registry."""

from facade.control.api.endpoint import Call, Endpoint
from facade.control.api.paging import cut, fields, maybe_moment, moment
from facade.control.api.permissions import Permission
from facade.control.api.schemas.base import Nothing, Page
from facade.control.api.schemas.connections import (
    ConnectionDetail,
    ConnectionItem,
    ConnectionList,
    ConnectionNew,
    ConnectionPatch,
    ConnectionRemoved,
    ConnectionTest,
    ConnectionTested,
    ManifestDetail,
    ManifestQuery,
    PlatformItem,
    Settings,
    TagItem,
    Tags,
    TagsQuery,
)
from facade.control.api.services import Connections
from facade.control.connections.model import StoredConnection
from facade.control.credentials.model import Offered
from facade.errors import Denied, Invalid, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Tag
from facade.secret import Secret
from facade.upstream.connection import ConnectionSettings


async def add(call: Call[Nothing, ConnectionNew]) -> ConnectionDetail:
    """Connect a registry."""
    body = call.body
    offered = Offered(
        RegistryHost.parse(body.host),
        body.username or "",
        None if body.secret is None else Secret(body.secret.get_secret_value()),
        body.config or {},
    )
    stored = await call.services.connections.add(
        body.provider, offered, _settings(body.settings), actor=call.principal.name
    )
    return _detail(call.services.connections, stored)


async def list_(call: Call[Page, Nothing]) -> ConnectionList:
    """All connections."""
    stored = call.services.connections.list()
    items = [_item(one) for one in cut(stored, call.query)]
    return ConnectionList(items=items, **fields(call.query, len(stored)))


async def show(call: Call[Nothing, Nothing]) -> ConnectionDetail:
    """One connection."""
    connections = call.services.connections
    return _detail(connections, connections.get(call.host))


async def change(call: Call[Nothing, ConnectionPatch]) -> ConnectionDetail:
    """Replace credentials, settings, or both."""
    body, host = call.body, call.host
    offered = None
    if body.username is not None or body.secret is not None or body.config is not None:
        offered = Offered(
            host,
            body.username or "",
            None if body.secret is None else Secret(body.secret.get_secret_value()),
            body.config or {},
        )
    elif body.settings is None:
        raise Invalid("There is nothing to change: send username, secret, config or settings.")
    settings = None if body.settings is None else _settings(body.settings)
    connections = call.services.connections
    return _detail(connections, await connections.change(host, offered=offered, settings=settings))


async def remove(call: Call[Nothing, Nothing]) -> ConnectionRemoved:
    """Disconnect."""
    stored = await call.services.connections.remove(call.host)
    return ConnectionRemoved(host=str(stored.host))


async def test(call: Call[Nothing, ConnectionTest]) -> ConnectionTested:
    """Try it now. A refusal by the registry is the result, not a failure of the request."""
    host = call.host
    name = call.body.repository
    repository = None if name is None else host.repository(name)
    try:
        message = await call.services.connections.test(host, repository)
    except (Upstream, Denied) as error:
        return ConnectionTested(host=str(host), ok=False, message=error.message)
    return ConnectionTested(host=str(host), ok=True, message=message)


async def tags(call: Call[TagsQuery, Nothing]) -> Tags:
    """Tags of a repository."""
    repository = call.host.repository(call.query.repository)
    found = await call.services.browse.tags(
        call.host, repository, hidden=call.query.all, match=call.query.match
    )
    return Tags(
        repository=str(repository),
        tags=[TagItem(name=name) for name in found.tags],
        clipped=found.clipped,
        pages=found.pages,
        read=found.read,
        last=found.last,
        hidden=found.hidden,
        ordered_by="best-effort",
    )


async def manifest(call: Call[ManifestQuery, Nothing]) -> ManifestDetail:
    """What a reference is now."""
    repository = call.host.repository(call.query.repository)
    text = call.query.reference
    reference = Digest.parse(text) if ":" in text else Tag.parse(text)
    found = await call.services.browse.manifest(call.host, repository, reference)
    return ManifestDetail(
        repository=str(repository),
        reference=text,
        digest=str(found.digest),
        media_type=found.media_type,
        size=found.size,
        platforms=[
            PlatformItem(
                platform=each.platform,
                digest=str(each.digest),
                size=each.size,
                total_bytes=each.total_bytes,
            )
            for each in found.platforms
        ],
        total_bytes=found.total_bytes,
        created=found.created,
        annotations=dict(found.annotations),
    )


def _settings(settings: Settings) -> ConnectionSettings:
    return ConnectionSettings(
        insecure=settings.insecure,
        ca_pem=settings.ca_pem,
        auth_hosts=settings.auth_hosts,
        proxy=settings.proxy,
    )


def _item(stored: StoredConnection) -> ConnectionItem:
    listed = stored.listed
    return ConnectionItem(
        host=str(listed.host), username=listed.username or None, provider=listed.provider
    )


def _detail(connections: Connections, stored: StoredConnection) -> ConnectionDetail:
    settings = stored.connection.settings
    return ConnectionDetail(
        host=str(stored.host),
        username=stored.username or None,
        provider=stored.connection.provider,
        settings=Settings(
            insecure=settings.insecure,
            ca_pem=settings.ca_pem,
            auth_hosts=settings.auth_hosts,
            proxy=settings.proxy,
        ),
        created_by=stored.created_by,
        created_at=moment(stored.created_at),
        last_ok=maybe_moment(stored.last_ok),
        last_error=stored.last_error,
        note=connections.note(stored),
    )


def _new_host(call: Call[Nothing, ConnectionNew]) -> str:
    return str(RegistryHost.parse(call.body.host))


_READ, _WRITE = Permission.CONNECTIONS_READ, Permission.CONNECTIONS_WRITE

ENDPOINTS = (
    Endpoint(
        "POST",
        "/connections",
        _WRITE,
        "Connect a registry",
        add,
        ConnectionDetail,
        Nothing,
        ConnectionNew,
        status=201,
        action="connection.add",
        subject=_new_host,
        refreshes=True,
    ),
    Endpoint(
        "GET", "/connections", _READ, "List connections", list_, ConnectionList, Page, Nothing
    ),
    Endpoint(
        "GET",
        "/connections/{host}",
        _READ,
        "Show a connection",
        show,
        ConnectionDetail,
        Nothing,
        Nothing,
    ),
    Endpoint(
        "PATCH",
        "/connections/{host}",
        _WRITE,
        "Change credentials or settings",
        change,
        ConnectionDetail,
        Nothing,
        ConnectionPatch,
        action="connection.change",
        refreshes=True,
    ),
    Endpoint(
        "DELETE",
        "/connections/{host}",
        _WRITE,
        "Disconnect a registry",
        remove,
        ConnectionRemoved,
        Nothing,
        Nothing,
        action="connection.remove",
        refreshes=True,
    ),
    Endpoint(
        "POST",
        "/connections/{host}/test",
        _WRITE,
        "Try a connection now",
        test,
        ConnectionTested,
        Nothing,
        ConnectionTest,
    ),
    Endpoint(
        "GET",
        "/connections/{host}/tags",
        _READ,
        "Tags of a repository",
        tags,
        Tags,
        TagsQuery,
        Nothing,
    ),
    Endpoint(
        "GET",
        "/connections/{host}/manifest",
        _READ,
        "What a reference is now",
        manifest,
        ManifestDetail,
        ManifestQuery,
        Nothing,
    ),
)
