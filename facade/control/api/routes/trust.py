"""The signed metadata's state: versions, expiry, keys."""

from facade.control.api.endpoint import Call, Endpoint
from facade.control.api.paging import moment
from facade.control.api.permissions import Permission
from facade.control.api.schemas.base import Nothing
from facade.control.api.schemas.system import RoleStatus, TrustStatus
from facade.control.api.services import RoleState

WARN_SHARE = {"timestamp": 3600.0, "snapshot": 24 * 3600.0}
WARN_SECONDS = 30 * 24 * 3600.0
"""An offline role's end is said this long before; the online roles' above."""


async def status(call: Call[Nothing, Nothing]) -> TrustStatus:
    """Every role, with what is wrong or soon will be."""
    now = call.services.clock.time()
    allowed = call.principal.fleets
    top = {"root", "targets", "snapshot", "timestamp"}
    roles = [
        _role(role, now)
        for role in await call.services.trust.roles()
        if allowed is None or role.role in top or role.role in allowed
    ]
    problems = [f"{role.role}: {role.problem}" for role in roles if role.problem]
    return TrustStatus(
        ok=all(role.expires_in > 0 for role in roles), roles=roles, problems=problems
    )


def _role(state: RoleState, now: float) -> RoleStatus:
    left = state.expires - now
    problem = None
    if left <= 0:
        problem = "expired; pulls are refused until it is signed again"
    elif left < WARN_SHARE.get(
        state.role, WARN_SECONDS if state.role in ("root", "targets") else 0
    ):
        problem = "expires soon; run: facade trust renew"
    return RoleStatus(
        role=state.role,
        version=state.version,
        expires=moment(state.expires),
        expires_in=round(left, 1),
        keys=list(state.keys),
        threshold=state.threshold,
        problem=problem,
    )


ENDPOINTS = (
    Endpoint(
        "GET",
        "/trust",
        Permission.TRUST_READ,
        "State of the signed metadata",
        status,
        TrustStatus,
        Nothing,
        Nothing,
    ),
)
