"""Registry hosts: how people write them, and the one form that we keep.

Guarantees: a `RegistryHost` is lower-case ASCII (IDNA 2008/2003 A-labels), an IPv4 address, or a
bracketed IPv6 address (IPv4 when it is IPv4-mapped), with a port only where it is not 443. Every
Docker Hub spelling is `docker.io`. Two texts that name the same registry give equal values. Credentials in the
text are refused, never kept.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from facade.errors import Invalid
from facade.oci.reference import Repository
from facade.reasons import Reason

DOCKER_HUB = "docker.io"
DOCKER_HUB_ENDPOINT = "registry-1.docker.io"
_DOCKER_HUB_ALIASES = frozenset(
    {
        "docker.io",
        "www.docker.io",
        "index.docker.io",
        "registry.docker.io",
        "registry-1.docker.io",
        "docker.com",
        "www.docker.com",
        "hub.docker.com",
        "registry.hub.docker.com",
    }
)
_DEFAULT_PORT = 443
_HTTP_PORT = 80
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ESCAPED_PORT = re.compile(r"(?P<name>[a-z0-9.-]+)__(?P<port>[0-9]{1,5})", re.ASCII)
_MAX_HOST_CHARS = 253
_MAX_INPUT_CHARS = 2048


def _invalid(message: str) -> Invalid:
    return Invalid(message, reason=Reason.NAME_INVALID)


@dataclass(frozen=True, slots=True, order=True)
class RegistryHost:
    """A registry's identity: `name` as kept, and the port when it is not 443."""

    name: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a host, `host:port`, or a pasted browser URL, and normalise it.

        The scheme, path, query and fragment of a URL are dropped, the case folded, `:443`
        dropped. Raises Invalid (NAME_INVALID) for credentials in the URL (RFC 3986, 3.2.1),
        for a scheme other than http(s), and for anything that is no host; the message
        never repeats the text, which may hold a secret.
        """
        rest = text.strip()
        if len(rest) > _MAX_INPUT_CHARS:
            raise _invalid("That is too long for a registry host.")
        scheme, separator, after = rest.partition("://")
        if separator:
            if scheme.lower() not in ("https", "http"):
                raise _invalid("A registry URL starts with https:// (or give just the host).")
            rest = after
        authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
        if "@" in authority:
            raise _invalid(
                "The URL holds credentials. Give the host alone, and the secret with "
                "--password-stdin; nothing was stored."
            )
        name, port = _split_port(authority)
        name = _canonical_name(name)
        if name in _DOCKER_HUB_ALIASES and port in (None, _DEFAULT_PORT):
            return cls(DOCKER_HUB)  # a pasted http:// link too: the Hub only redirects there
        if separator and scheme.lower() == "http" and port is None:
            port = _HTTP_PORT
        return cls(name, None if port == _DEFAULT_PORT else port)

    @property
    def is_docker_hub(self) -> bool:
        """Whether this is Docker Hub."""
        return self.name == DOCKER_HUB and self.port is None

    @property
    def endpoint(self) -> str:
        """`host[:port]` that serves the distribution API (registry-1.docker.io for the Hub)."""
        return DOCKER_HUB_ENDPOINT if self.is_docker_hub else str(self)

    @property
    def path_segment(self) -> str:
        """The first segment of a pull path: a port as `__PORT`, which references allow there."""
        if self.port is None and not looks_like_host(self.name):
            return f"{self.name}__{_DEFAULT_PORT}"  # else it would read as a repository's part
        if self.port is None or self.name.startswith("["):
            return str(self)
        return f"{self.name}__{self.port}"

    def repository(self, name: str) -> Repository:
        """The repository `name` here; on Docker Hub a single name expands to `library/NAME`.

        Raises Invalid (NAME_INVALID).
        """
        repository = Repository.parse(name)
        if self.is_docker_hub and "/" not in name:
            return Repository.parse(f"library/{name}")
        return repository

    def __str__(self) -> str:
        return self.name if self.port is None else f"{self.name}:{self.port}"


def looks_like_host(segment: str) -> bool:
    """Whether the first segment of a path names a host: it has a dot, a colon, or is localhost.

    The rule of `docker.io/…` references everywhere (distribution/reference, normalize.go).
    """
    return "." in segment or ":" in segment or segment == "localhost"


def host_in_path(segment: str) -> str | None:
    """The host that the first segment of a pull path names, None when it names none.

    Runtimes allow a port only in a reference's own first segment, which is the facade's address;
    so a port may also be written `__PORT`, which no host name and few repositories hold.
    """
    escaped = _ESCAPED_PORT.fullmatch(segment)
    if escaped is not None:
        return f"{escaped['name']}:{escaped['port']}"
    return segment if looks_like_host(segment) else None


def _split_port(authority: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        name, bracket, tail = authority.partition("]")
        name += bracket
        colon, digits = tail[:1], tail[1:]
    else:
        if authority.count(":") > 1:
            raise _invalid("Write an IPv6 address in brackets: [2001:db8::1]:5000.")
        name, colon, digits = authority.partition(":")
    if colon and colon != ":":
        raise _invalid("After ']' only a port may follow, like [2001:db8::1]:5000.")
    if not colon:
        return name, None
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 0 < int(digits) < 65536):
        raise _invalid("The port must be a number from 1 to 65535.")
    return name, int(digits)


def _canonical_name(name: str) -> str:
    if name.startswith("["):
        if not name.endswith("]") or "%" in name:
            raise _invalid("That is no IPv6 address (zone identifiers are not possible here).")
        try:
            address = ipaddress.IPv6Address(name[1:-1])
        except ValueError:
            raise _invalid("That is no IPv6 address.") from None
        mapped = address.ipv4_mapped  # its text form also differs between Python versions
        return f"[{address.compressed}]" if mapped is None else str(mapped)
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            raise _invalid("That is no host name (IDNA).") from None
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    if not name or len(name) > _MAX_HOST_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise _invalid("That is no registry host. Examples: ghcr.io, registry.example:5000.")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise _invalid("That is no IPv4 address.") from None
    return name
