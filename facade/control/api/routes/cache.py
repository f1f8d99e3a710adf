"""The cache of verified content: state, verify, warm, prune."""

from facade.control.api.endpoint import Call, Endpoint
from facade.control.api.permissions import Permission
from facade.control.api.routes.artifacts import warm_artifact
from facade.control.api.schemas.base import Nothing
from facade.control.api.schemas.catalog import Warmed
from facade.control.api.schemas.system import (
    CachePruned,
    CacheState,
    CacheVerified,
    CacheWarm,
    CacheWarmed,
)
from facade.target import parse_artifact_path


async def status(call: Call[Nothing, Nothing]) -> CacheState:
    """What it holds."""
    state = await call.services.cache.status()
    return CacheState(
        objects=state.objects,
        bytes=state.bytes,
        max_bytes=state.max_bytes,
        in_flight=state.in_flight,
        quarantined=state.quarantined,
    )


async def verify(call: Call[Nothing, Nothing]) -> CacheVerified:
    """Hash everything again."""
    checked, quarantined = await call.services.cache.verify()
    return CacheVerified(checked=checked, quarantined=quarantined)


async def warm(call: Call[Nothing, CacheWarm]) -> CacheWarmed:
    """Fetch artifacts."""
    paths = [parse_artifact_path(text) for text in call.body.targets]
    for fleet, _name, _version in paths:
        call.principal.require_fleet(fleet)
    items: list[Warmed] = [await warm_artifact(call, path) for path in paths]
    return CacheWarmed(ok=all(item.ok for item in items), items=items, total=len(items))


async def prune(call: Call[Nothing, Nothing]) -> CachePruned:
    """Evict down to the low watermark."""
    objects, size = await call.services.cache.prune()
    return CachePruned(objects=objects, bytes=size)


def _subject(call: Call[Nothing, CacheWarm]) -> str:
    return ", ".join(call.body.targets)


_READ, _WRITE = Permission.CACHE_READ, Permission.CACHE_WRITE

ENDPOINTS = (
    Endpoint("GET", "/cache", _READ, "What the cache holds", status, CacheState, Nothing, Nothing),
    Endpoint(
        "POST",
        "/cache/verify",
        _WRITE,
        "Hash everything again",
        verify,
        CacheVerified,
        Nothing,
        Nothing,
        action="cache.verify",
    ),
    Endpoint(
        "POST",
        "/cache/warm",
        _WRITE,
        "Fetch artifacts into the cache",
        warm,
        CacheWarmed,
        Nothing,
        CacheWarm,
        action="cache.warm",
        subject=_subject,
        streams=True,
    ),
    Endpoint(
        "POST",
        "/cache/prune",
        _WRITE,
        "Evict down to the low watermark",
        prune,
        CachePruned,
        Nothing,
        Nothing,
        action="cache.prune",
    ),
)
