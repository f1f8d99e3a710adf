"""One module per noun; each ends in the tuple of its endpoints."""

from typing import Any

from facade.control.api.endpoint import Endpoint
from facade.control.api.routes import (
    artifacts,
    cache,
    connections,
    devices,
    fleets,
    imports,
    keys,
    records,
    sealing,
    trust,
)

ENDPOINTS: tuple[Endpoint[Any, Any, Any], ...] = (
    *connections.ENDPOINTS,
    *imports.ENDPOINTS,
    *artifacts.ENDPOINTS,
    *fleets.ENDPOINTS,
    *devices.ENDPOINTS,
    *trust.ENDPOINTS,
    *cache.ENDPOINTS,
    *records.ENDPOINTS,
    *keys.ENDPOINTS,
    *sealing.ENDPOINTS,
)
"""Every endpoint but the OpenAPI document, which is made from these."""
