"""The signed metadata's state: versions, expiry, keys."""

import asyncio

from facade.control.api.endpoint import Call, Endpoint
from facade.control.api.outcomes import TrustState
from facade.control.api.paging import moment
from facade.control.api.permissions import Permission
from facade.control.api.schemas.base import Nothing
from facade.control.api.schemas.system import RoleItem, TrustReport


async def status(call: Call[Nothing, Nothing]) -> TrustReport:
    """Every role. A key for some fleets sees all of them too: the snapshot names them anyway."""
    state = await asyncio.to_thread(call.services.trust)
    return report(state, call.services.clock.time())


def report(state: TrustState, now: float) -> TrustReport:
    """The answer for a state.

    Arguments:
        now: Unix seconds.
    """
    roles = [
        RoleItem(
            role=role.name,
            version=role.version,
            expires=moment(role.expires),
            expires_in=round(role.expires - now, 1),
            keys=list(role.key_ids),
            threshold=role.threshold,
            offline=role.offline,
            artifacts=role.targets,
        )
        for role in state.roles
    ]
    return TrustReport(
        ok=all(role.expires_in > 0 for role in roles),
        roles=roles,
        offline_keys_at_hand=state.offline_keys_at_hand,
        warnings=list(state.warnings(now)),
    )


ENDPOINTS = (
    Endpoint(
        "GET",
        "/trust",
        Permission.TRUST_READ,
        "State of the signed metadata",
        status,
        TrustReport,
        Nothing,
        Nothing,
    ),
)
