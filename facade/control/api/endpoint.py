"""One way from a request to a use case and back.

Guarantees, for every `Endpoint` alike: the key is checked first, then its permission, then query
and body against their schemas; a change is written to the audit trail with its outcome, whether
it succeeded or not, and answers only when the serving processes use it or with `"pending": true`.
Handlers see validated values only and never the request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from facade.control.api import sse
from facade.control.api.auth import Authentication
from facade.control.api.errors import TooLarge, invalid, json_response
from facade.control.api.permissions import Permission, Principal
from facade.control.api.schemas.base import Nothing
from facade.control.api.services import OperatorServices
from facade.device import parse_device_path
from facade.errors import FacadeError, Invalid, Unavailable
from facade.oci.host import RegistryHost
from facade.target import parse_artifact_path

log = structlog.get_logger(__name__)

API_PREFIX = "/api/v1"
REFRESH_SECONDS = 5.0
"""How long a change waits for the serving processes (interface.md)."""
MAX_SUBJECT_CHARS = 512
_MAX_QUERY_CHARS = 4096

Q = TypeVar("Q", bound=BaseModel)
B = TypeVar("B", bound=BaseModel)
A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """One authenticated, permitted, validated request.

    Arguments:
        path: the segments that the route's template names, decoded.
        progress: takes JSON objects to show to whoever waits; drops them when nobody listens.
    """

    services: OperatorServices
    principal: Principal
    path: Mapping[str, str]
    query: Q
    body: B
    progress: Callable[[Mapping[str, Any]], None]

    @property
    def host(self) -> RegistryHost:
        """The `{host}` of the path. Raises Invalid."""
        return RegistryHost.parse(self.path["host"])

    @property
    def artifact(self) -> tuple[str, str, str]:
        """The `{fleet}/{name}/{version}` of the path, allowed to this key. Raises Invalid, Denied."""
        parts = parse_artifact_path(
            "/".join(self.path[key] for key in ("fleet", "name", "version"))
        )
        self.principal.require_fleet(parts[0])
        return parts

    @property
    def device(self) -> tuple[str, str]:
        """The `{fleet}/{name}` of the path, allowed to this key. Raises Invalid, Denied."""
        fleet, name = parse_device_path(f"{self.path['fleet']}/{self.path['name']}")
        self.principal.require_fleet(fleet)
        return fleet, name


def _path_subject(call: Call[Any, Any]) -> str:
    return "/".join(call.path.values())


def _no_detail(answer: Any) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Q, B, A]):
    """A route, its schemas and its use case; the OpenAPI document is made from the same.

    Arguments:
        path: below `/api/v1`, in aiohttp's and OpenAPI's shared `{name}` form.
        permission: what the key needs; None = any key.
        action: name in the audit trail, like "connection.add"; empty = this changes nothing.
        subject: what the audit row is about.
        detail: what the audit row says of the answer.
        refreshes: the serving processes must take the change up.
        streams: with `Accept: text/event-stream` the progress is streamed.
    """

    method: str
    path: str
    permission: Permission | None
    summary: str
    handler: Callable[[Call[Q, B]], Awaitable[A]]
    answer: type[A]
    query: type[Q]
    body: type[B]
    status: int = 200
    action: str = ""
    subject: Callable[[Call[Q, B]], str] = _path_subject
    detail: Callable[[A], Mapping[str, Any]] = _no_detail
    refreshes: bool = False
    streams: bool = False

    @property
    def has_body(self) -> bool:
        """Whether a request body is read."""
        return self.body is not Nothing


def register(
    router: web.UrlDispatcher,
    endpoints: Sequence[Endpoint[Any, Any, Any]],
    services: OperatorServices,
    authentication: Authentication,
) -> None:
    """Add every endpoint to the router."""
    for endpoint in endpoints:
        dispatcher = _Dispatcher(endpoint, services, authentication)
        router.add_route(endpoint.method, API_PREFIX + endpoint.path, dispatcher.handle)


class _Dispatcher:
    def __init__(
        self,
        endpoint: Endpoint[Any, Any, Any],
        services: OperatorServices,
        authentication: Authentication,
    ) -> None:
        self._endpoint = endpoint
        self._services = services
        self._authentication = authentication

    async def handle(self, request: web.Request) -> web.StreamResponse:
        endpoint = self._endpoint
        principal = await self._authentication.principal(request)
        if endpoint.permission is not None:
            principal.require(endpoint.permission)
        query = _query(request, endpoint.query)
        body = await _body(request, endpoint.body) if endpoint.has_body else Nothing()

        async def run(progress: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
            call = Call(self._services, principal, dict(request.match_info), query, body, progress)
            return await self._run(call)

        if endpoint.streams and sse.wanted(request):
            return await sse.respond(request, run)
        return json_response(await run(_nobody_listens), status=endpoint.status)

    async def _run(self, call: Call[Any, Any]) -> dict[str, Any]:
        endpoint = self._endpoint
        if not endpoint.action:
            return _dump(await endpoint.handler(call))
        try:
            answer = await endpoint.handler(call)
        except FacadeError as error:
            await self._note_failure(call, error)
            raise
        except asyncio.CancelledError:
            await self._note(call, "interrupted")
            raise
        except Exception:
            await self._note(call, "failed", error="internal error")
            raise
        await self._note(call, "ok", **endpoint.detail(answer))
        payload = _dump(answer)
        if endpoint.refreshes and not await self._refreshed():
            payload["pending"] = True
        return payload

    async def _note(self, call: Call[Any, Any], outcome: str, **detail: Any) -> None:
        await self._services.audit.record(
            actor=call.principal.name,
            action=self._endpoint.action,
            subject=self._endpoint.subject(call)[:MAX_SUBJECT_CHARS],
            outcome=outcome,
            detail={"key": call.principal.id, **detail},
        )

    async def _note_failure(self, call: Call[Any, Any], failed: FacadeError) -> None:
        """As `_note`; where the trail cannot be written either, `failed` is what the caller must hear."""
        try:
            await self._note(call, "failed", error=failed.message)
        except Unavailable as error:
            log.error("audit_row_missing", action=self._endpoint.action, error=error.message)

    async def _refreshed(self) -> bool:
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                return await self._services.cache.refresh()
        except (TimeoutError, FacadeError) as error:
            log.warning("refresh_pending", action=self._endpoint.action, error=str(error))
            return False


def _nobody_listens(event: Mapping[str, Any]) -> None:
    pass


def _dump(answer: BaseModel) -> dict[str, Any]:
    body = answer.model_dump(mode="json", exclude_none=True)
    # What a list is about comes first, for people who read it raw.
    return {"items": body.pop("items"), **body} if "items" in body else body


def _query(request: web.Request, schema: type[Q]) -> Q:
    if len(request.query_string) > _MAX_QUERY_CHARS:
        raise Invalid(f"The query is longer than {_MAX_QUERY_CHARS} characters.")
    if len(request.query) != len(set(request.query)):
        raise Invalid("The query gives a parameter more than once.")
    try:
        return schema.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid(error, "query") from None  # its text would repeat the input


async def _body(request: web.Request, schema: type[B]) -> B:
    try:
        data = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise TooLarge("The request body is too large.") from error
    try:
        return schema.model_validate_json(data)
    except ValidationError as error:
        raise invalid(error, "body") from None  # its text would repeat the input
