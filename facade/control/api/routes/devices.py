"""Devices: list, issue a certificate, revoke, restore."""

from facade.control.api.endpoint import Call, Endpoint
from facade.control.api.paging import cut, fields, maybe_moment, moment
from facade.control.api.permissions import Permission
from facade.control.api.schemas.base import Nothing
from facade.control.api.schemas.system import (
    DeviceIssued,
    DeviceItem,
    DeviceList,
    DeviceNew,
    DeviceRevoke,
    DeviceRevoked,
    DevicesQuery,
)
from facade.device import parse_device_path


async def list_(call: Call[DevicesQuery, Nothing]) -> DeviceList:
    """The devices of the fleets that this key may touch."""
    fleets = call.principal.fleets
    if call.query.fleet is not None:
        call.principal.require_fleet(call.query.fleet)
        fleets = frozenset({call.query.fleet})
    found = [
        device
        for device in await call.services.devices.list()
        if fleets is None or device.fleet in fleets
    ]
    items = [
        DeviceItem(
            fleet=device.fleet,
            name=device.name,
            serial=device.serial,
            not_after=maybe_moment(device.not_after),
            revoked=device.revoked_at is not None,
            revoked_at=maybe_moment(device.revoked_at),
            revoked_serials=list(device.revoked_serials),
        )
        for device in cut(found, call.query)
    ]
    return DeviceList(items=items, **fields(call.query, len(found)))


async def issue(call: Call[Nothing, DeviceNew]) -> DeviceIssued:
    """Sign a certificate request with the development CA."""
    fleet, name = parse_device_path(f"{call.body.fleet}/{call.body.name}")
    call.principal.require_fleet(fleet)
    issued = await call.services.devices.issue(
        fleet, name, call.body.csr, actor=call.principal.name
    )
    return DeviceIssued(
        fleet=fleet,
        name=name,
        serial=issued.serial,
        not_after=moment(issued.not_after),
        certificate=issued.certificate,
        ca=issued.ca,
    )


async def revoke(call: Call[Nothing, DeviceRevoke]) -> DeviceRevoked:
    """Refuse every certificate so far, or one."""
    fleet, name = call.device
    serial = call.body.serial
    if serial is not None:
        serial = serial.replace(":", "").lower().lstrip("0") or "0"
    await call.services.devices.revoke(fleet, name, serial, actor=call.principal.name)
    return DeviceRevoked(fleet=fleet, name=name, serial=serial, revoked=True)


async def restore(call: Call[Nothing, Nothing]) -> DeviceRevoked:
    """Admit certificates issued from now on."""
    fleet, name = call.device
    await call.services.devices.restore(fleet, name, actor=call.principal.name)
    return DeviceRevoked(fleet=fleet, name=name, revoked=False)


def _subject(call: Call[Nothing, DeviceNew]) -> str:
    return f"{call.body.fleet}/{call.body.name}"


def _revoked_subject(call: Call[Nothing, DeviceRevoke]) -> str:
    serial = f" serial {call.body.serial}" if call.body.serial else ""
    return "/".join(call.path.values()) + serial


_READ, _WRITE = Permission.DEVICES_READ, Permission.DEVICES_WRITE

ENDPOINTS = (
    Endpoint("GET", "/devices", _READ, "List devices", list_, DeviceList, DevicesQuery, Nothing),
    Endpoint(
        "POST",
        "/devices",
        _WRITE,
        "Issue a device certificate",
        issue,
        DeviceIssued,
        Nothing,
        DeviceNew,
        status=201,
        action="device.issue",
        subject=_subject,
        refreshes=True,
    ),
    Endpoint(
        "POST",
        "/devices/{fleet}/{name}/revoke",
        _WRITE,
        "Revoke a device or one certificate",
        revoke,
        DeviceRevoked,
        Nothing,
        DeviceRevoke,
        action="device.revoke",
        subject=_revoked_subject,
        refreshes=True,
    ),
    Endpoint(
        "POST",
        "/devices/{fleet}/{name}/restore",
        _WRITE,
        "Admit new certificates of a device",
        restore,
        DeviceRevoked,
        Nothing,
        Nothing,
        action="device.restore",
        refreshes=True,
    ),
)
