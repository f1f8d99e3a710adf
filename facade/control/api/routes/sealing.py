"""The key that seals secrets at rest."""

from facade.control.api.endpoint import Call, Endpoint
from facade.control.api.permissions import Permission
from facade.control.api.schemas.base import Nothing
from facade.control.api.schemas.sealing import SealingRotated


async def rotate(call: Call[Nothing, Nothing]) -> SealingRotated:
    """Change it; pulls go on meanwhile."""
    call.principal.require_all_fleets()
    done = await call.services.sealing.rotate()
    return SealingRotated(key_id=done.key, resealed=done.resealed, retired=list(done.retired))


ENDPOINTS = (
    Endpoint(
        "POST",
        "/sealing/rotate",
        Permission.KEYS_WRITE,
        "Change the key that seals secrets at rest",
        rotate,
        SealingRotated,
        Nothing,
        Nothing,
        action="sealing.rotate",
        subject=lambda call: "sealing key",
    ),
)
