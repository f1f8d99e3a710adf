"""Imports: tags become signed artifacts, with an outcome each."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from facade.control.api.endpoint import Call, Endpoint
from facade.control.api.permissions import Permission
from facade.control.api.schemas.base import Nothing
from facade.control.api.schemas.catalog import ImportDone, ImportNew, ImportResult
from facade.control.api.services import ImportOrder
from facade.device import parse_fleet, parse_name
from facade.errors import Invalid
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.platform import Platform
from facade.oci.reference import Tag
from facade.target import parse_version


async def run(call: Call[Nothing, ImportNew]) -> ImportDone:
    """Import every tag; one bad tag fails alone."""
    order = _order(call.body)
    call.principal.require_fleet(order.fleet)
    outcomes = await call.services.importer.run(
        order, actor=call.principal.name, progress=call.progress
    )
    return ImportDone(
        results=[
            ImportResult(
                host=str(order.host),
                repository=str(order.repository),
                tag=outcome.reference,
                status=outcome.status,
                digest=None if outcome.digest is None else str(outcome.digest),
                target=outcome.target,
                error=outcome.error,
                warmed=outcome.warmed,
            )
            for outcome in outcomes
        ]
    )


def _order(body: ImportNew) -> ImportOrder:
    host = RegistryHost.parse(body.host)
    if body.version is not None and len(body.tags) > 1:
        raise Invalid("One version cannot name several tags; leave it out or import them singly.")
    return ImportOrder(
        host=host,
        repository=host.repository(body.repository),
        references=tuple(Digest.parse(t) if ":" in t else Tag.parse(t) for t in body.tags),
        fleet=parse_fleet(body.fleet),
        name=None if body.name is None else parse_name(body.name, "artifact name"),
        version=None if body.version is None else parse_version(body.version),
        platforms=tuple(str(Platform.parse(text)) for text in body.platforms or ()),
        with_referrers=body.with_referrers,
        warm=body.warm,
    )


def _subject(call: Call[Nothing, ImportNew]) -> str:
    body = call.body
    return f"{body.host}/{body.repository}:{','.join(body.tags)} for {body.fleet}"


def _detail(done: ImportDone) -> Mapping[str, Any]:
    """How many tags had which outcome."""
    return {"results": dict(Counter(result.status for result in done.results))}


ENDPOINTS = (
    Endpoint(
        "POST",
        "/imports",
        Permission.ARTIFACTS_WRITE,
        "Import tags as signed artifacts",
        run,
        ImportDone,
        Nothing,
        ImportNew,
        action="artifact.import",
        subject=_subject,
        detail=_detail,
        refreshes=True,
        streams=True,
    ),
)
