"""The audit trail and the pulls."""

from facade.control.api.endpoint import Call, Endpoint
from facade.control.api.paging import fields, moment
from facade.control.api.permissions import Permission
from facade.control.api.schemas.base import Nothing
from facade.control.api.schemas.system import (
    AuditItem,
    AuditList,
    AuditQuery,
    PullItem,
    PullList,
    PullsQuery,
)
from facade.device import parse_device_path


async def audit(call: Call[AuditQuery, Nothing]) -> AuditList:
    """Who changed what. A key for some fleets does not see it: rows concern all of them."""
    call.principal.require_all_fleets()
    query = call.query
    rows, total = await call.services.audit.list(
        actor=query.actor,
        action=query.action,
        before=query.before,
        limit=query.limit,
        offset=query.offset,
    )
    items = [
        AuditItem(
            id=row.id,
            at=moment(row.at),
            actor=row.actor,
            action=row.action,
            subject=row.subject,
            outcome=row.outcome,
            detail=dict(row.detail),
        )
        for row in rows
    ]
    return AuditList(items=items, **fields(query, total))


async def pulls(call: Call[PullsQuery, Nothing]) -> PullList:
    """What devices pulled."""
    query = call.query
    fleet = query.fleet
    if query.device is not None:
        fleet = parse_device_path(query.device)[0]
    if fleet is None:
        call.principal.require_all_fleets()
    else:
        call.principal.require_fleet(fleet)
    rows, total = await call.services.pulls.list(
        fleet=query.fleet,
        device=query.device,
        before=query.before,
        limit=query.limit,
        offset=query.offset,
    )
    items = [
        PullItem(
            id=row.id,
            at=moment(pull.at),
            device=pull.device,
            host=pull.host,
            repository=pull.repository,
            digest=pull.digest,
            role=pull.role,
            outcome=pull.outcome,
            reason=None if pull.reason is None else str(pull.reason),
            bytes_sent=pull.bytes_sent,
            cache=pull.cache or None,
        )
        for row in rows
        for pull in (row.pull,)
    ]
    return PullList(items=items, **fields(query, total))


ENDPOINTS = (
    Endpoint(
        "GET",
        "/audit",
        Permission.AUDIT_READ,
        "The audit trail",
        audit,
        AuditList,
        AuditQuery,
        Nothing,
    ),
    Endpoint(
        "GET",
        "/pulls",
        Permission.AUDIT_READ,
        "What devices pulled",
        pulls,
        PullList,
        PullsQuery,
        Nothing,
    ),
)
