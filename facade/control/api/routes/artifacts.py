"""Signed artifacts: list, show, verify, warm, withdraw."""

from typing import Any

from facade.control.api.endpoint import Call, Endpoint
from facade.control.api.outcomes import ArtifactRecord
from facade.control.api.paging import fields, maybe_moment
from facade.control.api.permissions import Permission
from facade.control.api.schemas.base import Nothing
from facade.control.api.schemas.catalog import (
    ArtifactDetail,
    ArtifactItem,
    ArtifactList,
    ArtifactProblem,
    ArtifactsQuery,
    ArtifactVerified,
    ArtifactWithdrawn,
    Warmed,
    WarmedItem,
)
from facade.control.catalog.warming import warm as warm_blobs


async def list_(call: Call[ArtifactsQuery, Nothing]) -> ArtifactList:
    """Artifacts of the fleets that this key may touch."""
    fleets = call.principal.fleets
    if call.query.fleet is not None:
        call.principal.require_fleet(call.query.fleet)
        fleets = frozenset({call.query.fleet})
    records, total = await call.services.artifacts.list(
        fleets=fleets, name=call.query.name, limit=call.query.limit, offset=call.query.offset
    )
    return ArtifactList(items=[_item(record) for record in records], **fields(call.query, total))


async def show(call: Call[Nothing, Nothing]) -> ArtifactDetail:
    """One artifact."""
    record = await call.services.artifacts.get(*call.artifact)
    target = record.target
    return ArtifactDetail(
        **dict(_item(record)),
        media_type=target.media_type,
        length=target.length,
        total_bytes=record.bytes,
        platforms=list(record.platforms),
        referrers=[str(digest) for digest in target.referrers],
        pulled=record.pulled,
        last_pulled=maybe_moment(record.last_pulled),
    )


async def verify(call: Call[Nothing, Nothing]) -> ArtifactVerified:
    """Walk it again."""
    found = await call.services.artifacts.verify(*call.artifact)
    return ArtifactVerified(
        target="/".join(call.artifact),
        ok=not found.problems,
        checked=found.checked,
        blobs=found.blobs,
        cached=found.cached,
        problems=[ArtifactProblem(digest=d, problem=text) for d, text in found.problems],
    )


async def warm(call: Call[Nothing, Nothing]) -> Warmed:
    """Fetch its blobs into the cache."""
    return await warm_artifact(call, call.artifact)


async def warm_artifact(call: Call[Any, Any], artifact: tuple[str, str, str]) -> Warmed:
    """Fetch every blob of one artifact, telling the progress."""
    services = call.services
    connection, repository, blobs = await services.artifacts.blobs(*artifact)
    results = await warm_blobs(
        *(services.cache, connection, repository, blobs),
        tag="/".join(artifact),
        progress=call.progress,
    )
    return Warmed(
        target="/".join(artifact),
        ok=all(result.error is None for result in results),
        results=[
            WarmedItem(
                digest=str(result.digest),
                bytes=result.bytes,
                cached=result.cached,
                error=result.error,
            )
            for result in results
        ],
    )


async def withdraw(call: Call[Nothing, Nothing]) -> ArtifactWithdrawn:
    """Stop serving it."""
    await call.services.artifacts.withdraw(*call.artifact, actor=call.principal.name)
    return ArtifactWithdrawn(target="/".join(call.artifact))


def _item(record: ArtifactRecord) -> ArtifactItem:
    target = record.target
    return ArtifactItem(
        target=target.path,
        fleet=target.fleet,
        name=target.name,
        version=target.version,
        digest=str(target.digest),
        host=str(target.registry),
        repository=str(target.repository),
        reference=target.reference or None,
        created_by=record.imported_by,
        created_at=maybe_moment(record.imported_at),
    )


_READ, _WRITE = Permission.ARTIFACTS_READ, Permission.ARTIFACTS_WRITE
_ONE = "/artifacts/{fleet}/{name}/{version}"

ENDPOINTS = (
    Endpoint(
        "GET", "/artifacts", _READ, "List artifacts", list_, ArtifactList, ArtifactsQuery, Nothing
    ),
    Endpoint("GET", _ONE, _READ, "Show an artifact", show, ArtifactDetail, Nothing, Nothing),
    Endpoint(
        "DELETE",
        _ONE,
        _WRITE,
        "Withdraw an artifact",
        withdraw,
        ArtifactWithdrawn,
        Nothing,
        Nothing,
        action="artifact.withdraw",
        refreshes=True,
    ),
    Endpoint(
        "POST",
        f"{_ONE}/verify",
        _WRITE,
        "Check an artifact upstream again",
        verify,
        ArtifactVerified,
        Nothing,
        Nothing,
    ),
    Endpoint(
        "POST",
        f"{_ONE}/warm",
        _WRITE,
        "Fetch an artifact into the cache",
        warm,
        Warmed,
        Nothing,
        Nothing,
        action="artifact.warm",
        streams=True,
    ),
)
