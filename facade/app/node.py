"""What `facade up` runs behind its ports, however many processes serve devices.

Guarantees: SIGHUP's reload keeps what was there when a file is broken, and says so. `alone` wires a node
in one process, `with_workers` one whose devices are served by processes of their own.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from facade.app.control import ControlWing
from facade.config import Settings
from facade.errors import FacadeError, Invalid
from facade.observability.health import Health
from facade.secret import Secret
from facade.server import Handler, Layer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceSide:
    """What answers on the device port, where this process serves it."""

    app: Handler
    layer: Layer


@dataclass(frozen=True, slots=True)
class Node:
    """Applications for the ports.

    Arguments:
        device: None where workers serve devices.
        device_url: theirs; None where this process does.
        drain: ends what the ports do not end by themselves: workers, their pulls first.
    """

    device: DeviceSide | None
    device_url: str | None
    operator_app: web.Application
    operator_tls: ssl.SSLContext | None
    metrics_app: web.Application
    health: Health
    reload: Callable[[], None]
    drain: Callable[[], Awaitable[None]]
    first_api_key: Callable[[], "asyncio.Future[Secret]"]


def first_key(control: ControlWing) -> "asyncio.Future[Secret]":
    """A key with every permission, being made."""
    return asyncio.ensure_future(control.first_api_key())


class Reloading:
    """The operator port's TLS, and everything that SIGHUP reloads.

    Arguments:
        device_side: reloads the device port's files; raises FacadeError, and nothing changed.

    Raises Invalid from the constructor when the operator's files cannot be used.
    """

    def __init__(self, settings: Settings, device_side: Callable[[], None]) -> None:
        self._cert, self._key = settings.operator.cert, settings.operator.key
        self._device_side = device_side
        self.tls = _operator_tls(self._cert, self._key)

    def __call__(self) -> None:
        """Reload; a broken file keeps the old ones and is logged."""
        try:
            self._device_side()
            fresh = _operator_tls(self._cert, self._key)
            if fresh is not None and self.tls is not None:
                # Only after a fresh context took both: a live one would be left with half of them.
                _load(self.tls, self._cert, self._key)
        except FacadeError as error:
            log.error("tls_reload_failed", error=error.message)
        else:
            log.info("tls_reloaded")


def _operator_tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, cert, key)
    return context


def _load(context: ssl.SSLContext, cert: Path | None, key: Path | None) -> None:
    assert cert is not None
    try:
        # An encrypted key must not make a service prompt.
        context.load_cert_chain(cert, key, password=b"")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise Invalid(f"operator.cert {cert} and operator.key {key} cannot be used.") from error
