"""Behind a real haproxy in TCP mode: PROXY v2 in front of mutual TLS, health checks included."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.live import Live, live

pytestmark = [pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

CONFIGURATION = """\
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend devices
  bind 127.0.0.1:{front}
  default_backend facades
backend facades
  server one {device} {send} check inter 200ms
"""


@dataclass
class Balanced:
    """A facade that wants PROXY v2 from loopback, and its own address."""

    live: Live
    folder: Path
    device: str

    @contextlib.asynccontextmanager
    async def haproxy(self, send: str) -> AsyncIterator[str]:
        """HOST:PORT of a balancer in front."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            front = probe.getsockname()[1]
        file = self.folder / f"haproxy-{send}.cfg"
        file.write_text(CONFIGURATION.format(front=front, device=self.device, send=send))
        process = await asyncio.create_subprocess_exec(
            *("haproxy", "-db", "-q", "-f", str(file)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(20):
                while not await _listens(front):
                    assert process.returncode is None, f"haproxy does not take {file}"
                    await asyncio.sleep(0.05)
            yield f"127.0.0.1:{front}"
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def failures(self, reason: str) -> list[dict[str, Any]]:
        events = self.live.facade.events
        return [
            one
            for one in events
            if one["event"] == "handshake_failed" and one.get("reason") == reason
        ]

    async def failed(self, reason: str) -> dict[str, Any]:
        """The first such log line, within some seconds."""
        async with asyncio.timeout(20):
            while not self.failures(reason):  # noqa: ASYNC110 - its log is no event of ours
                await asyncio.sleep(0.05)
        return self.failures(reason)[0]


async def _listens(port: int) -> bool:
    try:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def balanced(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Balanced]:
    folder = tmp_path_factory.mktemp("haproxy")
    env = {"FACADE_DEVICE__PROXY_PROTOCOL_FROM": '["127.0.0.1/32"]'}
    async with live(folder, env=env) as it:
        await it.add()
        await it.import_all()
        yield Balanced(it, folder, it.facade.device)


async def test_a_device_pulls_through_it_and_checks_are_quiet(balanced: Balanced) -> None:
    async with balanced.haproxy("send-proxy-v2") as front:
        balanced.live.facade.device = front
        for tag in ("v1", "v2"):
            answered = await balanced.live.pull(tag)
            assert answered.status == 200
        await asyncio.sleep(1)  # some health checks
    assert len(balanced.failures("client-closed")) <= 1  # that was `_listens`, a client


async def test_the_log_names_the_client_and_not_the_balancer(balanced: Balanced) -> None:
    def knock(address: tuple[str, int]) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(address, source_address=("127.0.0.9", 0)) as plain,
            contextlib.suppress(OSError),
            context.wrap_socket(plain) as tls,
        ):
            tls.settimeout(5)
            tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            tls.recv(1)

    async with balanced.haproxy("send-proxy-v2") as front:
        host, _, port = front.rpartition(":")
        await asyncio.to_thread(knock, (host, int(port)))
        line = await balanced.failed("no-certificate")
    assert line["peer"].startswith("127.0.0.9:")


async def test_the_old_protocol_is_named(balanced: Balanced) -> None:
    async with balanced.haproxy("send-proxy"):
        line = await balanced.failed("proxy-v1")  # its health checks send it already
    assert line["detail"] == "It sends PROXY v1; configure v2 (haproxy: send-proxy-v2)."
    assert line["peer"].startswith("127.0.0.1:")


async def test_a_listed_balancer_without_a_header_is_refused(balanced: Balanced) -> None:
    balanced.live.facade.device = balanced.device
    with pytest.raises(OSError):
        await balanced.live.get("/v2/")
    line = await balanced.failed("proxy-header-missing")
    assert "send-proxy-v2" in line["detail"]
