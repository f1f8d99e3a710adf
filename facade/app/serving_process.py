"""A serving process: takes its order, wires the device wing, serves on the socket that it inherited.

Guarantees: it opens no database and is told of no key but the device port's own; it becomes its user
before it opens anything; it dies with its parent (`lifeline`). It reports `{"ready": true}` when it
serves, or `{"error": …}` in words and ends with status 1. SIGTERM drains; when to do so at once is its
parent's to say.
"""

import asyncio
import gc
import importlib
import json
import os
import sys
from contextlib import AsyncExitStack, suppress

import structlog

from facade.app.background import background
from facade.app.checks import deny_list_check
from facade.app.serving import serving_wing
from facade.app.tracing import open_traces
from facade.clock import SystemClock
from facade.config import parse_listen
from facade.errors import FacadeError
from facade.link.cache_server import cache_app
from facade.link.control_client import SocketControlPort
from facade.link.unix import served
from facade.observability.exposition import encode, read
from facade.observability.health import Health, encode_findings
from facade.observability.logs import configure
from facade.observability.metrics import Metrics
from facade.server import Port, Server
from facade.serving.identity.tls import TlsContexts
from facade.workers.lifeline import read_order, tie
from facade.workers.order import MAX_BYTES, Order
from facade.workers.process import descriptor_of
from facade.workers.signs import give_signs
from facade.workers.sockets import withdraw

log = structlog.get_logger(__name__)

FAILED = 1
LATE = (
    *("_strptime", "encodings.ascii", "encodings.idna", "tuf.api.serialization.json"),
    "cryptography.hazmat.backends.openssl.backend",
)
"""What libraries import at first use. Loaded before the user changes, who may not be able to read them
(an interpreter in somebody's home), and before the first device waits for them."""


def run(orders: int, reports: int, signs: int) -> int:
    """Serve until told to stop; gives the exit status.

    Arguments:
        orders, reports: descriptors of the pipes from and to the parent.
        signs: of the pipe for signs of life.
    """
    for name in LATE:
        importlib.import_module(name)
    line = read_order(orders, MAX_BYTES)
    if not line or not tie(orders):
        return FAILED  # the parent is gone
    try:
        order = Order.decode(line)
        if order.user is not None:
            order.user.become()
            os.umask(0o077)
        configure(order.settings.log.level, order.settings.log.format, sys.stderr)
        structlog.contextvars.bind_contextvars(worker=order.index)
        asyncio.run(_serve(order, reports, signs))
    except FacadeError as error:
        _report(reports, error=error.message)
        return FAILED
    return 0


async def _serve(order: Order, reports: int, signs: int) -> None:
    settings, clock = order.settings, SystemClock()
    metrics = Metrics(clock)
    async with AsyncExitStack() as stack:
        traces = open_traces(stack, settings)
        control = SocketControlPort(
            order.control_socket, clock=clock, observer=metrics, watchers=traces.link_watchers
        )
        await control.start()
        stack.push_async_callback(control.close)
        background(stack, give_signs(signs, control.silent_seconds, clock))
        wing = await stack.enter_async_context(
            serving_wing(
                settings,
                control=control,
                metrics=metrics,
                clock=clock,
                follow=control.refresh,
                others=order.others,
                traces=traces,
            )
        )
        max_age = settings.device.deny_list_max_age
        health = Health(
            (
                *wing.checks,
                ("deny list", lambda: deny_list_check(control.silent_seconds(), max_age)),
            )
        )
        sock = descriptor_of(order.listen_fd)

        def draining() -> None:
            health.drain()
            # Before the listener closes: its parent holds the socket too, and would let devices queue.
            withdraw(sock)
            wing.drain()

        port = Port(
            "device",
            parse_listen(settings.device.listen),
            wing.app,
            layer=wing.layer,
            idle_seconds=settings.device.limits.idle,
            bound=sock,
        )
        server = Server([port], reload=lambda: _reload(wing.contexts), draining=draining)
        app = cache_app(
            wing.cache,
            metrics=lambda: encode(read(metrics.registry)),
            health=lambda: encode_findings(health.findings()),
        )
        # Answers until the last pull is done: then the parent may still ask what was counted.
        await stack.enter_async_context(
            served(app, order.cache_socket, allowed={order.parent_uid, os.geteuid()})
        )
        stack.push_async_callback(wing.finish)
        server.heed_signals(hasty=False)
        await server.start()
        stack.push_async_callback(server.close)
        # What was made at start stays: the collector need not look at it again. Nor before: that takes
        # 50 ms, and of 118,000 objects 2,000 are garbage.
        gc.freeze()
        gc.enable()  # `worker` switched it off
        _report(reports, ready=True)
        await server.wait()


def _reload(contexts: TlsContexts) -> None:
    """On SIGHUP; a broken file keeps the old ones and says so."""
    try:
        contexts.reload()
    except FacadeError as error:
        log.error("tls_reload_failed", error=error.message)
    else:
        log.info("tls_reloaded")


def _report(reports: int, **said: object) -> None:
    with suppress(OSError):  # the parent is gone, and so is this process
        os.write(reports, json.dumps(said).encode() + b"\n")
