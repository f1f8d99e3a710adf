"""`facade up` from the outside: first and later starts, what is missing, signals, ports."""

import asyncio
import json
import os
import signal
import stat
import urllib.request
from pathlib import Path

import pytest

from tests.support.facade_process import FacadeProcess, facade_up, run


def _get(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.status, response.read().decode()


async def test_first_start_leaves_what_the_interface_promises(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with facade_up(state, "--name", "facade.example") as it:
        for name in (
            *("api-key", "url", "server-ca.pem", "device-ca.pem", "root.json", "facade.db"),
            *("cache", "trust", "sealing.key", "offline"),
        ):
            assert (state / name).exists(), name
        for secret in ("api-key", "sealing.key", "device-ca.key", "server.key"):
            assert stat.S_IMODE((state / secret).stat().st_mode) == 0o600
        assert (state / "url").read_text().strip() == it.operator
        names = await run("openssl", "x509", "-in", state / "server.pem", "-noout", "-text")
        for name in ("facade.example", "localhost", "127.0.0.1"):
            assert name in names.stdout
        assert (await it.must("fleet", "list", "--json")).json["items"][0]["name"] == "dev"
        status, body = await asyncio.to_thread(_get, f"{it.metrics}/readyz")
        assert (status, json.loads(body)["status"]) == (200, "ok")
        status, body = await asyncio.to_thread(_get, f"{it.metrics}/metrics")
        assert 'facade_metadata_expiry_seconds{role="timestamp"}' in body
        assert await it.stop() == 0


async def test_a_second_start_uses_everything_again_and_needs_no_offline_keys(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    async with facade_up(state) as it:
        await it.stop()
        kept = {name: (state / name).read_bytes() for name in ("api-key", "root.json")}
        (state / "offline").rename(tmp_path / "carried-away")
        (state / "offline-passphrase").rename(tmp_path / "passphrase")
        await it.start()
        assert kept == {name: (state / name).read_bytes() for name in kept}
        refused = await it.cli("fleet", "add", "kiosks")
        assert refused.code == 1
        assert "facade trust delegate kiosks" in refused.stderr
        assert await it.stop() == 0


async def test_the_same_folder_twice_names_the_pid(tmp_path: Path) -> None:
    async with facade_up(tmp_path / "state") as it:
        second = await it.cli("up", "--state", tmp_path / "state")
        assert second.code == 1
        assert f"PID {it.pid}" in second.stderr
        assert second.stdout == ""


async def test_a_port_in_use_is_named_and_nothing_is_left_running(tmp_path: Path) -> None:
    async with facade_up(tmp_path / "one") as it:
        other = FacadeProcess(
            tmp_path / "two", env={"FACADE_OPERATOR__LISTEN": it.operator.removeprefix("http://")}
        )
        with pytest.raises(AssertionError, match=r"operator port .* is in use"):
            await other.start()


@pytest.mark.parametrize(
    ("missing", "words"),
    [("sealing.key", "sealing.key is missing"), ("root.json", "pinned root of trust")],
)
async def test_what_cannot_be_made_again_is_an_error(
    tmp_path: Path, missing: str, words: str
) -> None:
    state = tmp_path / "state"
    async with facade_up(state) as it:
        await it.stop()
        (state / missing).unlink()
        with pytest.raises(AssertionError, match=words):
            await it.start()


async def test_an_unknown_variable_stops_the_start(tmp_path: Path) -> None:
    it = FacadeProcess(tmp_path / "state", env={"FACADE_DEVISE__LISTEN": "x"})
    with pytest.raises(AssertionError, match="FACADE_DEVISE__LISTEN: no such setting"):
        await it.start()


async def test_hangup_takes_a_new_server_certificate(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with facade_up(state) as it:
        (state / "server.pem").write_text("broken")
        os.kill(it.pid, signal.SIGHUP)
        for _ in range(100):
            if "tls_reload_failed" in it.log:
                break
            await asyncio.sleep(0.05)
        assert "tls_reload_failed" in it.log
        await it.must("device", "issue", "dev/kiosk", "--out", tmp_path / "kiosk")
        answer = await run(
            *("curl", "-sS", "--cacert", tmp_path / "kiosk" / "ca.crt"),
            *("--cert", tmp_path / "kiosk" / "client.cert"),
            *("--key", tmp_path / "kiosk" / "client.key", f"https://{it.device}/v2/"),
        )
        assert answer.stdout == "{}", answer


async def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    async with facade_up(tmp_path / "state") as it:
        assert await it.interrupt() == 0
        assert "Traceback" not in it.log


async def test_whoever_read_the_log_is_gone(tmp_path: Path) -> None:
    """It serves, reloads and ends as before; only its log is lost."""
    unread = ("bash", "-c", 'exec "$@" 2> >(exec true)', "bash")
    async with facade_up(tmp_path / "state", prefix=unread) as it:
        await it.must("fleet", "list")
        os.kill(it.pid, signal.SIGHUP)
        status, _ = await asyncio.to_thread(_get, f"{it.metrics}/readyz")
        assert status == 200
        async with asyncio.timeout(60):
            assert await it.stop() == 0
