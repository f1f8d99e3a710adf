"""An image's configuration, for what it says of platform and creation.

Guarantees: what is read hashes to the descriptor's digest, within bounds in bytes and time; what cannot
be read counts as saying nothing. It is for people: it grants nothing.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from facade.control.catalog.ports import Registry
from facade.errors import Invalid, Upstream
from facade.oci.manifest import Descriptor
from facade.oci.platform import Platform
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.upstream.connection import Connection

MAX_CONFIG_BYTES = 4 * 1024 * 1024
CONFIG_SECONDS = 20.0

_CONFIG_TYPES = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)


async def read_config(
    registry: Registry, connection: Connection, repository: Repository, config: Descriptor
) -> Mapping[str, Any]:
    """An image's configuration; empty when it has none, or one that cannot be read.

    Raises Upstream when the registry does not give it.
    """
    if config.media_type not in _CONFIG_TYPES or config.size > MAX_CONFIG_BYTES:
        return {}
    data = bytearray()
    try:
        async with asyncio.timeout(CONFIG_SECONDS):
            async with registry.blob(connection, repository, config.digest) as body:
                async for chunk in body.chunks():
                    data += chunk
                    if len(data) > config.size:
                        return {}
    except TimeoutError as error:
        raise Upstream(
            f"{connection.host} took more than {CONFIG_SECONDS:.0f} s to send an image's "
            "configuration.",
            reason=Reason.UPSTREAM_UNREACHABLE,
        ) from error
    if not config.digest.matches(bytes(data)):
        return {}
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def platform_of(config: Mapping[str, Any]) -> Platform | None:
    """The platform that an image's configuration states."""
    parts = [config.get(key) for key in ("os", "architecture", "variant")]
    text = "/".join(part for part in parts if isinstance(part, str) and part)
    try:
        return Platform.parse(text)
    except Invalid:
        return None
