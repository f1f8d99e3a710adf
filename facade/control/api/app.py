"""The operator port as an aiohttp application.

Guarantees: every answer carries `Cache-Control: no-store` and the error shape of `errors`; the
application holds no state of its own but the counts of failed keys. Listening, TLS and shutdown
are the caller's.
"""

import asyncio
import functools
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from facade.control.api.auth import Authentication, allowed_hosts, hosts_middleware
from facade.control.api.endpoint import API_PREFIX, register
from facade.control.api.errors import MAX_BODY_BYTES, errors_middleware, json_response
from facade.control.api.journal import HEADER, REQUEST_ID, journal_middleware
from facade.control.api.openapi import document
from facade.control.api.permissions import Principal
from facade.control.api.routes import ENDPOINTS
from facade.control.api.services import OperatorServices, principal
from facade.secret import Secret


def operator_app(
    services: OperatorServices, *, listen_host: str = "127.0.0.1", hosts: Iterable[str] = ()
) -> web.Application:
    """Build the application.

    Arguments:
        listen_host: the address listened on (for the Host check).
        hosts: further host names that requests may name (`operator.allowed_hosts`).
    """
    app = web.Application(
        middlewares=[
            journal_middleware(services.clock),
            errors_middleware,
            hosts_middleware(allowed_hosts(listen_host, hosts)),
        ],
        client_max_size=MAX_BODY_BYTES,
    )

    async def authenticate(key: Secret) -> Principal | None:
        record = await services.keys.authenticate(key)
        return None if record is None else principal(record)

    authentication = Authentication(authenticate, services.keys.known, services.clock)
    register(app.router, ENDPOINTS, services, authentication)

    @functools.cache
    def openapi() -> dict[str, Any]:
        return document(ENDPOINTS)

    async def describe(request: web.Request) -> web.Response:
        await authentication.principal(request)
        # Made for the first who asks: it takes 30 ms, and hardly anybody does.
        return json_response(await asyncio.to_thread(openapi))

    app.router.add_get(f"{API_PREFIX}/openapi.json", describe, allow_head=False)
    app.on_response_prepare.append(_headers)
    return app


async def _headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[HEADER] = request.get(REQUEST_ID, "")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
