"""The table of providers: a name, and what makes it.

Guarantees: a provider's module is imported when a connection first uses it, and a third-party package
when that needs it, so one that is not installed costs nothing to the others.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from facade.clock import Clock
from facade.errors import Invalid, Upstream
from facade.reasons import Reason
from facade.upstream.cloud import CloudAnswer, CloudHttp, CloudRequest
from facade.upstream.connection import Connection

if TYPE_CHECKING:
    from facade.control.credentials.model import Provider


GOOGLE_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - a place, no secret


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where clouds are asked: from process configuration, never from a connection.

    Arguments:
        google_token_uri: the only place that is asked for Google's tokens.
        google_hosts: registries that may be told them, besides Google's own names.
        aws_sts, aws_ecr: URLs instead of AWS's regional ones.
    """

    google_token_uri: str = GOOGLE_TOKEN_URI
    google_hosts: frozenset[str] = frozenset()
    aws_sts: str | None = None
    aws_ecr: str | None = None


class NoCloudHttp:
    """Reaches no cloud: for processes and tests that exchange nothing."""

    async def send(self, connection: Connection, request: CloudRequest) -> CloudAnswer:
        raise Upstream(
            "This process has no way to ask a cloud.", reason=Reason.UPSTREAM_UNREACHABLE
        )


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What a provider may use.

    Arguments:
        http: how clouds are asked.
    """

    clock: Clock
    http: CloudHttp = field(default_factory=NoCloudHttp)
    endpoints: Endpoints = field(default_factory=Endpoints)


class Make(Protocol):
    """Makes a provider."""

    def __call__(self, context: ProviderContext) -> "Provider": ...


TABLE: Mapping[str, str] = {
    "static": "StaticProvider",
    "anonymous": "AnonymousProvider",
    "google": "GoogleProvider",
    "aws": "AwsProvider",
}
"""Provider → class in the module of the same name."""


def missing(name: str) -> Invalid:
    """The error for a provider whose packages (the extra of its name) are not installed."""
    return Invalid(
        f"The provider {name!r} needs packages that are not installed: pip install 'facade[{name}]'"
    )


class Providers:
    """The providers, made when first asked for.

    Arguments:
        context: handed to each.
        extra: further ones by name (tests).
    """

    def __init__(
        self, context: ProviderContext, extra: Mapping[str, "Provider"] | None = None
    ) -> None:
        self._context = context
        self._made: dict[str, Provider] = dict(extra or {})

    def get(self, name: str) -> "Provider":
        """The provider called `name`.

        Raises Invalid when there is none, or when the package that it needs is not installed.
        """
        if name not in self._made:
            if name not in TABLE:
                raise Invalid(
                    f"There is no provider {name!r}. Those built are: {', '.join(TABLE)}."
                )
            try:
                module = importlib.import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:
                raise missing(name) from error
            make: Make = getattr(module, TABLE[name])
            self._made[name] = make(self._context)
        return self._made[name]
