"""The clients: curl for blobs, ab for small requests, plain sockets for idle connections.

Guarantees: every participant meets the same client, with the same device's certificate and the same
cipher; an answer that is not complete and 200 fails the measurement.
"""

import contextlib
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from facade.oci.manifest import OCI_MANIFEST
from tests.support.daemons import Containerd

_CIPHER = "TLS_AES_128_GCM_SHA256"
_SECONDS = 300.0


def curl(device: Path, *urls: str) -> list[float]:
    """Get `urls` in turn on one connection; seconds from sending a request to its first byte."""
    command = [*_curl(), "--write-out", "%{time_starttransfer} %{time_pretransfer}\n"]
    command += _identity(device)
    for url in urls:
        command += ["--output", "/dev/null", url]
    lines = _run(command).splitlines()
    pairs = [[float(word) for word in line.split()] for line in lines]
    return [first - before for first, before in pairs]


def crowd(devices: Sequence[Path], url: str, clients: int, config: Path) -> None:
    """`clients` get `url` at once, each on a connection of its own."""
    blocks = []
    for number in range(clients):
        device = devices[number % len(devices)]
        blocks.append(
            f'url = "{url}"\noutput = "/dev/null"\nfail\nsilent\nshow-error\n'
            f'cacert = "{device}/ca.crt"\ncert = "{device}/client.cert"\n'
            f'key = "{device}/client.key"\ntls13-ciphers = "{_CIPHER}"\n'
        )
    config.write_text("next\n".join(blocks))
    _run(
        [
            *("curl", "--parallel", "--parallel-immediate", "--parallel-max", str(clients)),
            *("--config", str(config)),
        ]
    )


def ab(device: Path, url: str, requests: int, *, keep_alive: bool, concurrency: int = 4) -> None:
    """`requests` times `url`, with a connection for each or one per concurrent client."""
    command = ["ab", "-q", "-n", str(requests), "-c", str(concurrency), "-f", "TLS1.3"]
    command += ["-E", str(device / "both.pem"), "-H", f"Accept: {OCI_MANIFEST}"]
    said = _run([*command, *(["-k"] if keep_alive else []), url])
    complete = re.search(r"Complete requests:\s+(\d+)", said)
    failed = re.search(r"Failed requests:\s+(\d+)", said)
    refused = re.search(r"Non-2xx responses:\s+(\d+)", said)
    if not complete or int(complete[1]) != requests or not failed or failed[1] != "0" or refused:
        raise RuntimeError(f"ab did not get what it asked for:\n{said}")


def skopeo(device: Path, image: str, target: Path) -> None:
    """Copy an image into a folder."""
    _run(
        [
            "skopeo",
            "copy",
            "-q",
            "--src-cert-dir",
            str(device),
            f"docker://{image}",
            f"dir:{target}",
        ]
    )


def ctr(daemon: Containerd, device: Path, image: str) -> None:
    """Fetch an image into containerd's store, from nothing, without unpacking it."""
    host = image.partition("/")[0]
    daemon.configure(
        host,
        f'server = "https://{host}"\n[host."https://{host}"]\n'
        f'  capabilities = ["pull", "resolve"]\n  ca = "{device}/ca.crt"\n'
        f'  client = [["{device}/client.cert", "{device}/client.key"]]\n',
    )
    command = ["ctr", "--address", str(daemon.folder / "c.sock")]
    _run([*command, "content", "fetch", "--hosts-dir", str(daemon.hosts), image])
    _run([*command, "images", "rm", "--sync", image])


@contextlib.contextmanager
def idle_connections(devices: Sequence[Path], url: str, count: int) -> Iterator[None]:
    """Hold `count` keep-alive connections, each of which has made one request."""
    contexts = [_context(device) for device in devices]
    parts = urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {OCI_MANIFEST}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for number in range(count):
            context = contexts[number % len(contexts)]
            plain = socket.create_connection((parts.hostname or "", parts.port or 443), timeout=30)
            secure = stack.enter_context(context.wrap_socket(plain))
            secure.sendall(request.encode())
            if b" 200 " not in secure.recv(65536).split(b"\r\n", 1)[0]:
                raise RuntimeError(f"{url} was refused")
        yield


def _context(device: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(device / "ca.crt"))
    context.load_cert_chain(device / "client.cert", device / "client.key")
    context.check_hostname = False
    return context


def _curl() -> list[str]:
    return ["curl", "--silent", "--show-error", "--fail", "--tls13-ciphers", _CIPHER]


def _identity(device: Path) -> list[str]:
    files = {"--cacert": "ca.crt", "--cert": "client.cert", "--key": "client.key"}
    return [word for option, name in files.items() for word in (option, str(device / name))]


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}): {done.stderr[-1000:]}")
    return done.stdout
