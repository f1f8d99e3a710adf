"""TLS on the operator port: `facade up` with a certificate, and a command line that verifies it."""

import asyncio
import os
import shutil
import signal
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.facade_process import FacadeProcess, Finished, facade_up, run
from tests.support.pki import Authority


def _tls(certificate: Path, key: Path) -> dict[str, str]:
    return {"FACADE_OPERATOR__CERT": str(certificate), "FACADE_OPERATOR__KEY": str(key)}


async def _cli(env: Mapping[str, str], *arguments: str) -> Finished:
    return await run(sys.executable, "-m", "facade.cli.main", *arguments, env=env)


async def test_the_certificate_of_the_state_folder_serves_from_the_first_start_on(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    async with facade_up(state, env=_tls(state / "server.pem", state / "server.key")) as facade:
        assert facade.operator.startswith("https://")
        assert (state / "url").read_text().strip() == facade.operator
        assert (await facade.must("fleet", "list", "--json")).json["total"] == 1
        import_ = ("artifact", "import", "ghcr.io/org/app:v1", "--fleet", "nowhere")
        assert "no fleet nowhere" in (await facade.cli(*import_)).stderr, "streams go the same way"

        # Somebody elsewhere, with the address and the key and not the CA.
        elsewhere = {
            "FACADE_URL": facade.operator,
            "FACADE_API_KEY": (state / "api-key").read_text().strip(),
            "FACADE_STATE": str(tmp_path / "elsewhere"),
        }
        refused = await _cli(elsewhere, "fleet", "list")
        assert (refused.code, refused.stdout) == (1, "")
        assert "is not trusted" in refused.stderr
        assert "server-ca.pem" in refused.stderr, "it says what to do"
        (tmp_path / "elsewhere").mkdir()
        shutil.copy(state / "server-ca.pem", tmp_path / "elsewhere")
        assert (await _cli(elsewhere, "fleet", "list")).code == 0

        plain = {**elsewhere, "FACADE_URL": facade.operator.replace("https:", "http:")}
        refused = await _cli(plain, "fleet", "list")
        assert refused.code == 1
        assert refused.stderr.count("\n") == 1


async def test_a_certificate_for_another_name_is_refused_in_words(tmp_path: Path) -> None:
    other = Authority.root("Other CA")
    files = other.server("facade.example").write(tmp_path / "other")
    async with facade_up(tmp_path / "state", env=_tls(files.certificate, files.key)) as facade:
        shutil.copy(other.write(tmp_path / "other"), facade.state / "server-ca.pem")
        refused = await facade.cli("fleet", "list")
        assert refused.code == 1
        assert "127.0.0.1" in refused.stderr


async def test_a_renewed_certificate_is_taken_on_hangup_and_a_broken_one_is_not(
    tmp_path: Path,
) -> None:
    first, renewed = (Authority.root(name).server("127.0.0.1") for name in ("First", "Renewed"))
    files = first.write(tmp_path / "tls")
    async with facade_up(tmp_path / "state", env=_tls(files.certificate, files.key)) as facade:
        assert await _shown(facade) == first.der
        files.certificate.write_text("broken")
        await _hang_up(facade, "tls_reload_failed")
        assert await _shown(facade) == first.der
        renewed.write(tmp_path / "tls")
        await _hang_up(facade, "tls_reloaded")
        async with asyncio.timeout(20):  # a worker may have said so, of the device port, first
            while await _shown(facade) != renewed.der:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)


async def _shown(facade: FacadeProcess) -> bytes:
    host, port = facade.operator.removeprefix("https://").split(":")
    pem = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    return ssl.PEM_cert_to_DER_cert(pem)


async def _hang_up(facade: FacadeProcess, event: str) -> None:
    os.kill(facade.pid, signal.SIGHUP)
    async with asyncio.timeout(5):
        while event not in facade.log:  # noqa: ASYNC110 - there is no event for a log line
            await asyncio.sleep(0.02)
