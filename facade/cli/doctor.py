"""`facade doctor`: look at everything once and say what to do.

Guarantees: changes nothing; one failed check never hides the others; exit 1 when something is broken,
0 when there is only advice. Checks from where it runs: a server elsewhere (FACADE_URL) is asked through
its API, its files and its metrics port are not looked at.
"""

import asyncio
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from facade.cli.client import Api
from facade.cli.config import ConfigFile
from facade.cli.output import clean, document, line, size
from facade.cli.running import WARN_FREE_BYTES, Finding, examine
from facade.cli.session import AsJson, Session, State, example, session_of
from facade.errors import FacadeError

WARN_SECONDS = 30 * 24 * 3600
"""How long before its end a certificate is warned about."""
CONNECT_SECONDS = 3.0
NEEDED_FREE_BYTES = 32 * 1024**2
"""Below this, signing, the audit, and revoking a device are about to fail."""
_CERTIFICATES = ("server.pem", "server-ca.pem", "device-ca.pem")
_SECRET_FILES = ("api-key", "sealing.key", "server.key", "server-ca.key", "device-ca.key")
_CLOSED = {"server.key": 0o037}
"""Bits that must not be set: the server's key may be read by the group of `device.worker_user`."""
_OPEN_FOLDER = 0o067
"""The group of `device.worker_user` may pass through."""


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", epilog=example("facade doctor"))(doctor)


def doctor(
    ctx: typer.Context, *, config: ConfigFile = None, state: State = None, as_json: AsJson = False
) -> None:
    """Check configuration, state folder, disk, ports, certificates, metadata, database, cache,
    connections; ask a running facade for its readiness, workers, and registries given up.

    Exit 1 when something is broken, 0 when there is only advice.
    """
    session = session_of(ctx)
    findings = list(_examine(session, config))
    ok = all(finding.status != "failed" for finding in findings)
    if session.as_json:
        document(session, {"ok": ok, "checks": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            line(session, clean(f"{finding.status:8} {finding.check}: {finding.message}"))
    if not ok:
        raise typer.Exit(1)


def _examine(session: Session, config: Path | None) -> Iterator[Finding]:
    yield from _guarded("configuration", lambda: _configuration(session, config))
    yield from _guarded("state folder", lambda: _state_folder(session))
    yield from _guarded("disk", lambda: _disk(session))
    yield from _guarded("certificates", lambda: _certificates(session))
    yield from _guarded("redis", lambda: _redis(session, config))
    try:
        api = session.api()
        api.get("/openapi.json")
    except FacadeError as error:
        yield Finding("operator API", "failed", error.message)
        held = list(_guarded("lock", lambda: _lock(session)))
        yield from held
        if held:
            yield from _guarded("readiness", lambda: _running(session))
        else:
            yield from _guarded("ports", lambda: _ports(session, config))
        return
    yield Finding("operator API", "ok", f"answers at {api.url}")
    yield from _guarded("readiness", lambda: _running(session))
    yield from _guarded("metadata", lambda: _metadata(api))
    yield from _guarded("database", lambda: _database(api))
    yield from _guarded("cache", lambda: _cache(api))
    yield from _guarded("connections", lambda: _connections(api))


def _guarded(check: str, run: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from run()
    except FacadeError as error:
        yield Finding(check, "failed", error.message)
    except OSError as error:
        where = error.filename or "a file"
        words = f"{where}: {error.strerror or error}; run doctor as root or as facade's own user"
        yield Finding(check, "failed", words)


def _configuration(session: Session, config: Path | None) -> Iterator[Finding]:
    from facade.config.sources import load

    load(config, session.environ)
    yield Finding("configuration", "ok", "every key is known and valid")


def _redis(session: Session, config: Path | None) -> Iterator[Finding]:
    from facade.config.redis_url import parse_redis_url
    from facade.config.sources import load

    configured = load(config, session.environ).redis.url
    if not configured:
        return
    from facade.control.credentials.cache.redis_link import problem

    url = parse_redis_url(configured)
    why = asyncio.run(problem(url))
    if why is None:
        yield Finding("redis", "ok", f"{url} answers")
    else:
        words = f"{url} cannot be used ({why}): tokens stay in memory; check it and redis.url"
        yield Finding("redis", "warning", words)


def _state_folder(session: Session) -> Iterator[Finding]:
    folder = session.folder
    if not folder.root.is_dir():
        words = (
            f"{folder.root} is not there. If a facade runs with another folder, name that one with "
            "--state or FACADE_STATE; if none runs yet, facade up makes it"
        )
        yield Finding("state folder", "warning", words)
        return
    if not (folder.api_key.exists() or folder.pinned_root.exists()):
        words = (
            f"{folder.root} holds no facade (no {folder.api_key.name}, no "
            f"{folder.pinned_root.name}): name the folder of facade up with --state or FACADE_STATE"
        )
        yield Finding("state folder", "failed", words)
        return
    if stat.S_IMODE(folder.root.stat().st_mode) & _OPEN_FOLDER:
        words = f"others can look into {folder.root}; chmod 700 it (710 with device.worker_user)"
        yield Finding("state folder", "failed", words)
        return
    open_files = [
        name
        for name in _SECRET_FILES
        if (folder.root / name).exists()
        and stat.S_IMODE((folder.root / name).stat().st_mode) & _CLOSED.get(name, 0o077)
    ]
    for name in open_files:
        yield Finding(
            "state folder", "failed", f"others can read {folder.root / name}; chmod 600 it"
        )
    if folder.offline.exists():
        yield Finding(
            "offline keys",
            "warning",
            f"{folder.offline} is still on this machine: carry it away, and its passphrase "
            f"({folder.offline_passphrase.name}) separately; everything runs without them",
        )
    if not os.access(folder.root, os.W_OK):
        yield Finding("state folder", "failed", f"{folder.root} cannot be written by this user")
    elif not open_files:
        yield Finding("state folder", "ok", f"{folder.root} is private")


def _lock(session: Session) -> Iterator[Finding]:
    """Whether a facade that does not answer runs on the folder; nothing when none does."""
    pid = session.folder.holder()
    if pid is not None and not session.environ.get("FACADE_URL"):
        words = (
            f"{session.folder.root} is in use by PID {pid}: it starts, stops, or hangs. Look at its "
            "log; one that hangs is ended with kill -9, then start facade up again"
        )
        yield Finding("process", "failed", words)


def _running(session: Session) -> Iterator[Finding]:
    url = session.metrics_url
    if url is not None:
        yield from examine(url)
    elif session.environ.get("FACADE_URL"):
        words = "not asked: FACADE_URL names a server elsewhere; run doctor beside it"
        yield Finding("readiness", "warning", words)
    else:
        words = (
            f"not asked: there is no {session.folder.metrics_url}; facade up writes it at its start"
        )
        yield Finding("readiness", "warning", words)


def _disk(session: Session) -> Iterator[Finding]:
    """Whether there is room where the database, the keys and the metadata lie."""
    folder = session.folder.root.absolute()
    place = next(each for each in (folder, *folder.parents) if each.is_dir())
    yield room(shutil.disk_usage(place).free, session.folder.root)


def room(free: int, folder: Path) -> Finding:
    """What `free` bytes on the disk of `folder` mean."""
    left = f"{size(free)} are left at {folder}"
    if free < NEEDED_FREE_BYTES:
        words = f"{left}: soon nothing can be signed, revoked or noted; make room"
        return Finding("disk", "failed", words)
    if free < WARN_FREE_BYTES:
        words = f"{left}; make room, or have the cache give some back: facade cache prune"
        return Finding("disk", "warning", words)
    return Finding("disk", "ok", left)


def _database(api: Api) -> Iterator[Finding]:
    api.get("/audit", {"limit": 1})
    yield Finding("database", "ok", "can be read")


def _certificates(session: Session) -> Iterator[Finding]:
    from facade.cli.inspection import read_certificate
    from facade.clock import SystemClock

    now = SystemClock().time()
    for path in (session.folder.root / name for name in _CERTIFICATES):
        if not path.exists():
            continue
        certificate = read_certificate(path)
        left = certificate.not_valid_after_utc.timestamp() - now
        until = f"{path.name} is valid until {certificate.not_valid_after_utc:%Y-%m-%d}"
        if left <= 0:
            yield Finding("certificates", "failed", f"{path.name} has expired; {_renew(path)}")
        elif left < WARN_SECONDS:
            yield Finding("certificates", "warning", f"{until}; {_renew(path)}")
        else:
            yield Finding("certificates", "ok", until)


def _renew(path: Path) -> str:
    if path.name == "server.pem":
        return "restart facade up, which makes a new one"
    return "a new CA means new certificates for all who trust it: plan it"


def _metadata(api: Api) -> Iterator[Finding]:
    answer = api.get("/trust")
    for warning in answer["warnings"]:
        yield Finding("metadata", "warning" if answer["ok"] else "failed", warning)
    if answer["ok"] and not answer["warnings"]:
        first = min(answer["roles"], key=lambda role: role["expires_in"])
        yield Finding("metadata", "ok", f"valid; {first['role']} is next, on {first['expires']}")


def _cache(api: Api) -> Iterator[Finding]:
    answer = api.get("/cache")
    if answer["quarantined"]:
        yield Finding("cache", "warning", f"{answer['quarantined']} objects failed their check")
    else:
        yield Finding("cache", "ok", f"{answer['objects']} objects")


def _connections(api: Api) -> Iterator[Finding]:
    from facade.cli.client import segment

    items: list[dict[str, Any]] = api.everything("/connections")["items"]
    if not items:
        yield Finding("connections", "warning", "none; connect one: facade registry add HOST …")
    for item in items:
        detail = api.get(f"/connections/{segment(item['host'])}")
        if detail.get("last_error"):
            yield Finding(
                "connections",
                "warning",
                f"{item['host']}: {detail['last_error']} (try: facade registry test {item['host']})",
            )
        else:
            yield Finding("connections", "ok", item["host"])


def _ports(session: Session, config: Path | None) -> Iterator[Finding]:
    """Nothing answers: are the ports that a server would take free?"""
    from facade.config import parse_listen
    from facade.config.sources import load

    settings = load(config, session.environ)
    for name in ("device", "operator", "metrics"):
        host, port = parse_listen(getattr(settings, name).listen)
        if port and _somebody_listens(host, port):
            words = f"another program listens on the {name} port {port}; find it: ss -ltnp"
            yield Finding("ports", "failed", words)
        elif port:
            yield Finding("ports", "ok", f"the {name} port {port} is free")


def _somebody_listens(host: str, port: int) -> bool:
    address = {"": "127.0.0.1", "::": "::1", "0.0.0.0": "127.0.0.1"}.get(host, host)  # noqa: S104
    with suppress(OSError), socket.create_connection((address, port), timeout=CONNECT_SECONDS):
        return True
    return False
