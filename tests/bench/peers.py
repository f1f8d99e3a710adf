"""The peers: Debian's nginx and docker-registry, set up as one would for the same job; and the floor.

Guarantees: TLS 1.3 and client certificates are demanded by all; nginx has one worker unless asked
otherwise, sendfile, and no access log; docker-registry logs errors only. What they do not do stays undone: nginx's cache
does not hash, docker-registry's cached reads are not checked, nobody asks who may have what.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.docker_registry import free_port
from tests.support.ending import end

_START_SECONDS = 15.0
_STOP_SECONDS = 10.0
_CACHE_MIB = 4096


@dataclass(frozen=True, slots=True)
class Material:
    """PEM files: the server's certificate and key, and who issues devices' certificates."""

    certificate: Path
    key: Path
    device_ca: Path


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx with two ports: plain files, and a cache in front of a registry."""

    pid: int
    static: str
    proxy: str
    cache: Path


@dataclass(frozen=True, slots=True)
class Registry:
    """A running docker-registry behind TLS."""

    pid: int
    origin: str
    storage: Path


_NGINX = """
daemon off;
user root;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 75s;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/temp;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  ssl_protocols TLSv1.3;
  ssl_certificate {material.certificate};
  ssl_certificate_key {material.key};
  ssl_client_certificate {material.device_ca};
  ssl_verify_client on;
  proxy_cache_path {folder}/cache levels=1:2 keys_zone=blobs:10m max_size={cache_mib}m inactive=1d use_temp_path=off;
  upstream registry {{ server {upstream}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{static_port} ssl{shared};
    root {static};
    location = /v2/ {{ return 200; }}
    location ~ /manifests/ {{ default_type application/vnd.oci.image.manifest.v1+json; }}
  }}
  server {{
    listen 127.0.0.1:{proxy_port} ssl;
    location / {{
      proxy_pass http://registry;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host {upstream};
      proxy_cache blobs;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 60s;
      proxy_cache_valid 200 1d;
    }}
  }}
}}
"""


@contextlib.asynccontextmanager
async def nginx(
    folder: Path, material: Material, *, static: Path, upstream: str, workers: int = 1
) -> AsyncIterator[Nginx]:
    """Run nginx.

    Arguments:
        workers: more than one share connections as ours do, by SO_REUSEPORT.
        static: the files of the first port.
        upstream: `http://HOST:PORT`, behind the second one.
    """
    ports = free_port(), free_port()
    text = _NGINX.format(
        folder=folder,
        workers=workers,
        shared=" reuseport" if workers > 1 else "",
        material=material,
        static=static,
        upstream=upstream.removeprefix("http://"),
        static_port=ports[0],
        proxy_port=ports[1],
        cache_mib=_CACHE_MIB,
    )
    config = _write(folder, "nginx.conf", text)
    async with _running(folder, ports[0], "nginx", "-c", str(config), "-p", str(folder)) as pid:
        static_origin, proxy_origin = (f"https://127.0.0.1:{port}" for port in ports)
        yield Nginx(pid, static_origin, proxy_origin, folder / "cache")


@contextlib.asynccontextmanager
async def registry_over_tls(
    folder: Path, material: Material, *, storage: Path | None = None, proxied: str = ""
) -> AsyncIterator[Registry]:
    """Run docker-registry.

    Arguments:
        storage: another registry's folder to serve from; its own without.
        proxied: the registry that it is a pull-through cache of.
    """
    storage = storage or folder / "storage"
    port = free_port()
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {
            "addr": f"127.0.0.1:{port}",
            "secret": "not a secret",
            "tls": {
                "certificate": str(material.certificate),
                "key": str(material.key),
                "clientcas": [str(material.device_ca)],
                "minimumtls": "tls1.2",  # the highest that 2.8 can be told; clients offer 1.3
            },
        },
    }
    if proxied:
        config["proxy"] = {"remoteurl": proxied}
    path = _write(folder, "config.yml", json.dumps(config))  # JSON is YAML
    async with _running(folder, port, "docker-registry", "serve", str(path)) as pid:
        yield Registry(pid, f"https://127.0.0.1:{port}", storage)


@dataclass(frozen=True, slots=True)
class Floor:
    """The running loop that only moves bytes: `tests.bench.floor`."""

    pid: int
    origin: str
    kept: Path


@contextlib.asynccontextmanager
async def floor(folder: Path, material: Material, *, upstream: str) -> AsyncIterator[Floor]:
    """Run it.

    Arguments:
        upstream: `http://HOST:PORT`.
    """
    _make(folder)
    port = upstream.rpartition(":")[2]
    files = material.certificate, material.key, material.device_ca
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.floor", folder, port, *files),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            said = await process.stdout.readline()
        yield Floor(process.pid, f"https://127.0.0.1:{int(said)}", folder)
    finally:
        await end(process, _STOP_SECONDS)


@contextlib.asynccontextmanager
async def _running(folder: Path, port: int, *command: str) -> AsyncIterator[int]:
    """Run a server until the context ends; its PID once it listens on `port`."""
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        await _listening(port, process, folder / "log")
        yield process.pid
    finally:
        await end(process, _STOP_SECONDS)


async def _listening(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(0.02)
    raise RuntimeError(f"A peer did not start: see its log.\n{_tail(log)}")


def _make(folder: Path) -> None:
    folder.mkdir(parents=True)


def _write(folder: Path, name: str, text: str) -> Path:
    _make(folder)
    path = folder / name
    path.write_text(text)
    return path


def _tail(log: Path) -> str:
    return log.read_text()[-2000:]
