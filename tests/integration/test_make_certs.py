"""The script certs-dev/make-certs, run as people run it."""

import ssl
import subprocess
import sys
from pathlib import Path

from facade.serving.identity.certificate import DeviceCA, DeviceCertificates, SpiffeRule

SCRIPT = Path(__file__).resolve().parents[2] / "certs-dev" / "make-certs"


def make_certs(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_server_and_device_can_talk(tmp_path: Path) -> None:
    made = make_certs(tmp_path, "--name", "facade.example", "dev/kiosk-1", "prod/scanner")
    assert made.returncode == 0, made.stderr
    device = tmp_path / "devices" / "prod" / "scanner"
    assert made.stdout.split() == [str(tmp_path / "devices" / "dev" / "kiosk-1"), str(device)]
    client = ssl.create_default_context(cafile=str(device / "ca.crt"))
    client.load_cert_chain(device / "client.cert", device / "client.key")
    server = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "device-ca.pem")
    )
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client.wrap_bio(to_client, to_server, server_hostname="facade.example")
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    der = server_side.getpeercert(binary_form=True)
    assert der is not None
    ca = DeviceCA.from_pem((tmp_path / "device-ca.pem").read_bytes())
    trusted = DeviceCertificates([ca], SpiffeRule("facade.local"))
    assert str(trusted.device(der)) == "prod/scanner"


def test_a_second_run_keeps_the_authorities(tmp_path: Path) -> None:
    make_certs(tmp_path)
    before = (tmp_path / "device-ca.pem").read_bytes()
    assert make_certs(tmp_path).returncode == 0
    assert (tmp_path / "device-ca.pem").read_bytes() == before


def test_a_bad_name_is_one_line_on_stderr(tmp_path: Path) -> None:
    made = make_certs(tmp_path, "Kiosk")
    assert made.returncode == 1
    assert made.stderr.count("\n") == 1
    assert "FLEET/NAME" in made.stderr
