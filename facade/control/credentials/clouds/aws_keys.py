"""AWS credentials to assume a role with, and where the platform's own come from.

Guarantees: no repr shows one. Does not guarantee where the platform's come from: that is botocore's
chain (environment, profile, web identity, container, instance), which asks over its own HTTP at the
addresses that the platform itself set, never at one that a connection names.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from facade.secret import Secret


@dataclass(frozen=True, slots=True)
class Keys:
    """AWS credentials: an access key, and a session token when they are temporary."""

    access_key_id: str = field(repr=False)
    secret_access_key: Secret
    session_token: Secret | None = None


PlatformKeys = Callable[[Any], Awaitable[Keys | None]]
"""An aiobotocore session → the platform's own credentials, None when it offers none."""


async def platform_keys(session: Any) -> Keys | None:
    """What botocore's chain finds."""
    found = await session.get_credentials()
    if found is None:
        return None
    frozen = await found.get_frozen_credentials()
    token = None if frozen.token is None else Secret(frozen.token)
    return Keys(frozen.access_key, Secret(frozen.secret_key), token)
