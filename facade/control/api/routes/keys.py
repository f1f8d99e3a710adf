"""API keys: list, make, revoke. A key makes no key that can do more than itself."""

from facade.control.api.endpoint import Call, Endpoint
from facade.control.api.outcomes import KeyRecord
from facade.control.api.paging import cut, fields, maybe_moment, moment
from facade.control.api.permissions import Permission, Principal
from facade.control.api.schemas.base import Nothing, Page
from facade.control.api.schemas.system import KeyItem, KeyList, KeyMade, KeyNew, KeyRevoked
from facade.device import parse_fleet
from facade.errors import Denied


async def list_(call: Call[Page, Nothing]) -> KeyList:
    """All keys, without their values."""
    call.principal.require_all_fleets()
    records = await call.services.keys.list()
    items = [_item(record) for record in cut(records, call.query)]
    return KeyList(items=items, **fields(call.query, len(records)))


async def create(call: Call[Nothing, KeyNew]) -> KeyMade:
    """Make a key and show it once."""
    permissions = frozenset(str(permission) for permission in call.body.permissions)
    fleets = call.body.fleets
    wanted = None if fleets is None else frozenset(map(parse_fleet, fleets))
    _check_no_more_than(call.principal, permissions, wanted)
    record, key = await call.services.keys.create(
        call.body.name, permissions, wanted, actor=call.principal.name
    )
    return KeyMade(**dict(_item(record)), key=key.reveal())


async def revoke(call: Call[Nothing, Nothing]) -> KeyRevoked:
    """Refuse a key from now on."""
    call.principal.require_all_fleets()
    record = await call.services.keys.revoke(call.path["id"])
    return KeyRevoked(id=record.id)


def _check_no_more_than(
    maker: Principal, permissions: frozenset[str], fleets: frozenset[str] | None
) -> None:
    if missing := sorted(permissions - maker.permissions):
        raise Denied(f"This API key cannot give what it lacks: {', '.join(missing)}.")
    if fleets is None:
        maker.require_all_fleets()
    for fleet in sorted(fleets or ()):
        maker.require_fleet(fleet)


def _item(record: KeyRecord) -> KeyItem:
    return KeyItem(
        id=record.id,
        name=record.name,
        permissions=sorted(record.permissions),
        fleets=None if record.fleets is None else sorted(record.fleets),
        created_at=moment(record.created_at),
        last_used=maybe_moment(record.last_used),
    )


def _subject(call: Call[Nothing, KeyNew]) -> str:
    return call.body.name


_WRITE = Permission.KEYS_WRITE

ENDPOINTS = (
    Endpoint("GET", "/keys", _WRITE, "List API keys", list_, KeyList, Page, Nothing),
    Endpoint(
        "POST",
        "/keys",
        _WRITE,
        "Make an API key",
        create,
        KeyMade,
        Nothing,
        KeyNew,
        status=201,
        action="key.create",
        subject=_subject,
    ),
    Endpoint(
        "DELETE",
        "/keys/{id}",
        _WRITE,
        "Revoke an API key",
        revoke,
        KeyRevoked,
        Nothing,
        Nothing,
        action="key.revoke",
    ),
)
