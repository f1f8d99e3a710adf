"""A CRL that changes while devices are connected: refused within seconds, on open connections too."""

import asyncio
import time
from pathlib import Path

import aiohttp

from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.pki import TRUST_DOMAIN, Authority, Leaf, client_context

WITHIN_SECONDS = 5.0


def _configuration(folder: Path, ca: Authority) -> Path:
    """The device port accepts `ca`, whose CRL revokes nobody yet."""
    (folder / "crl.pem").write_bytes(ca.crl())
    file = folder / "facade.toml"
    file.write_text(
        f'[device]\ntrust_domain = "{TRUST_DOMAIN}"\n'
        f'[[device.ca]]\nfile = "{ca.write(folder, "own-ca.pem")}"\ncrl = "{folder}/crl.pem"\n'
    )
    return file


def _session(facade: FacadeProcess, leaf: Leaf) -> aiohttp.ClientSession:
    context = client_context(None, leaf, check_hostname=False)
    connector = aiohttp.TCPConnector(ssl=context, limit=1)
    return aiohttp.ClientSession(f"https://{facade.device}", connector=connector)


async def _whoami(session: aiohttp.ClientSession) -> tuple[int, str]:
    async with session.get("/whoami") as answer:
        return answer.status, await answer.text()


async def test_a_revoked_serial_is_refused_on_an_open_connection(tmp_path: Path) -> None:
    ca = Authority.root("Own device CA")
    revoked, other = ca.device("dev", "kiosk-1"), ca.device("dev", "kiosk-2")
    file = _configuration(tmp_path, ca)
    async with (
        facade_up(tmp_path / "state", "--config", str(file)) as facade,
        _session(facade, revoked) as first,
        _session(facade, other) as second,
    ):
        assert (await _whoami(first))[0] == 200
        assert (await _whoami(second))[0] == 200
        (tmp_path / "crl.pem").write_bytes(ca.crl(revoked))
        deadline = time.monotonic() + WITHIN_SECONDS
        status, body = await _whoami(first)
        while status == 200 and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            status, body = await _whoami(first)
        assert (status, "device-revoked" in body) == (403, True)
        assert (await _whoami(second))[0] == 200

        (tmp_path / "crl.pem").write_text("broken")
        await facade.logged("tls_reload_failed")
        assert (await _whoami(first))[0] == 403
        assert (await _whoami(second))[0] == 200
