"""The forms of `[redis] url`, parsed.

    redis://[USER:PASSWORD@]HOST[:PORT][/DB]                          one server
    redis+cluster://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]        Redis Cluster
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,…]/SERVICE[/DB]     the master that Sentinel names

`rediss…` instead of `redis…` speaks TLS. Options follow a `?`: `ca_file=/path/ca.pem` (the CA to
believe, instead of the system's) and `sentinel_password=…` (what the sentinels themselves want).
User, password and options are percent-encoded. Sentinel's default port is 26379, else 6379.

Guarantees: neither an error nor the text of a `RedisUrl` shows a password. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl, unquote

from facade.secret import Secret

REDIS_PORT = 6379
SENTINEL_PORT = 26379
_OPTIONS = frozenset({"ca_file", "sentinel_password"})
_FORMS = (
    "write redis://[USER:PASSWORD@]HOST[:PORT][/DB], redis+cluster://HOST[:PORT][,…] or "
    "redis+sentinel://HOST[:PORT][,…]/SERVICE[/DB]; rediss… for TLS"
)


class RedisKind(StrEnum):
    """How the servers are arranged."""

    SINGLE = ""
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where Redis is.

    Arguments:
        hosts: (name, port); of the sentinels, where there are some.
        service: the name by which the sentinels know the master.
        ca_file: PEM file; None = the system's CAs.
    """

    kind: RedisKind
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    username: str | None = None
    password: Secret | None = None
    database: int = 0
    service: str = ""
    ca_file: str | None = None
    sentinel_password: Secret | None = None

    @property
    def places(self) -> str:
        """The hosts, for people."""
        return ", ".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )

    def __str__(self) -> str:
        user = "" if self.password is None and not self.username else f"{self.username or ''}:***@"
        scheme = ("rediss" if self.tls else "redis") + (f"+{self.kind}" if self.kind else "")
        path = f"/{self.service}" if self.service else ""
        path += f"/{self.database}" if self.database else ""
        return f"{scheme}://{user}{self.places.replace(' ', '')}{path}"


def parse_redis_url(text: str) -> RedisUrl:
    """Read a URL. Raises ValueError, which never repeats any of it."""
    scheme, found, rest = text.strip().partition("://")
    base, _, arrangement = scheme.lower().partition("+")
    if not found or base not in ("redis", "rediss"):
        raise ValueError(_FORMS)
    try:
        kind = RedisKind(arrangement)
    except ValueError:
        raise ValueError(_FORMS) from None
    rest, _, query = rest.partition("?")
    place, _, path = rest.partition("/")
    user, _, hosts = place.rpartition("@")
    username, _, password = user.partition(":")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(options) - _OPTIONS):
        raise ValueError(
            f"the only options are {', '.join(sorted(_OPTIONS))}; {len(unknown)} other given"
        )
    service, database = _path(kind, path.rstrip("/"))
    sentinel = options.get("sentinel_password")
    return RedisUrl(
        kind=kind,
        tls=base == "rediss",
        hosts=tuple(_host(part, kind) for part in hosts.split(",")),
        username=unquote(username) or None,
        password=Secret(unquote(password)) if password else None,
        database=database,
        service=service,
        ca_file=options.get("ca_file"),
        sentinel_password=Secret(sentinel) if sentinel else None,
    )


def _path(kind: RedisKind, path: str) -> tuple[str, int]:
    """The service's name and the database's number."""
    service = ""
    if kind is RedisKind.SENTINEL:
        service, _, path = path.partition("/")
        if not service:
            raise ValueError("name the service: redis+sentinel://HOST[:PORT][,…]/SERVICE")
    if not path:
        return service, 0
    if kind is RedisKind.CLUSTER or not (path.isascii() and path.isdigit() and len(path) < 6):
        raise ValueError(_FORMS)
    return service, int(path)


def _host(text: str, kind: RedisKind) -> tuple[str, int]:
    default = SENTINEL_PORT if kind is RedisKind.SENTINEL else REDIS_PORT
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1] if bracket else "?", rest[1:]
    else:
        host, colon, port = text.partition(":")
    if not host or colon not in ("", ":") or any(char.isspace() for char in host):
        raise ValueError(_FORMS)
    if not colon:
        return host, default
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(_FORMS)
    return host, int(port)
