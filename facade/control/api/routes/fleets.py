"""Fleets: list, add."""

from facade.control.api.endpoint import Call, Endpoint
from facade.control.api.outcomes import FleetRecord
from facade.control.api.paging import cut, fields, maybe_moment
from facade.control.api.permissions import Permission
from facade.control.api.schemas.base import Nothing, Page
from facade.control.api.schemas.catalog import FleetItem, FleetList, FleetNew
from facade.device import parse_fleet


async def list_(call: Call[Page, Nothing]) -> FleetList:
    """The fleets that this key may touch."""
    allowed = call.principal.fleets
    found = [
        fleet
        for fleet in await call.services.fleets.list()
        if allowed is None or fleet.name in allowed
    ]
    items = [_item(fleet) for fleet in cut(found, call.query)]
    return FleetList(items=items, **fields(call.query, len(found)))


async def add(call: Call[Nothing, FleetNew]) -> FleetItem:
    """Add a fleet."""
    name = parse_fleet(call.body.name)
    call.principal.require_fleet(name)
    return _item(await call.services.fleets.add(name))


def _item(fleet: FleetRecord) -> FleetItem:
    return FleetItem(
        name=fleet.name,
        artifacts=fleet.artifacts,
        version=fleet.version,
        expires=maybe_moment(fleet.expires),
    )


def _subject(call: Call[Nothing, FleetNew]) -> str:
    return call.body.name


ENDPOINTS = (
    Endpoint(
        "GET", "/fleets", Permission.ARTIFACTS_READ, "List fleets", list_, FleetList, Page, Nothing
    ),
    Endpoint(
        "POST",
        "/fleets",
        Permission.ARTIFACTS_WRITE,
        "Add a fleet",
        add,
        FleetItem,
        Nothing,
        FleetNew,
        status=201,
        action="fleet.add",
        subject=_subject,
        refreshes=True,
    ),
)
