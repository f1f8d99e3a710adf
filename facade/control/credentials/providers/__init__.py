"""The table of providers: a name, and what makes it.

Guarantees: a provider's module, and whatever third-party package it needs, is imported when a
connection first uses it, so one that is not installed costs nothing to the others.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facade.clock import Clock
from facade.errors import Invalid

if TYPE_CHECKING:
    from facade.control.credentials.model import Provider


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What a provider may use."""

    clock: Clock


class Make(Protocol):
    """Makes a provider."""

    def __call__(self, context: ProviderContext) -> "Provider": ...


TABLE: Mapping[str, str] = {
    "static": "StaticProvider",
    "anonymous": "AnonymousProvider",
}
"""Provider → class in the module of the same name."""

NOT_BUILT: Mapping[str, str] = {
    "google": "Until then a service account's JSON key works as a password: --username _json_key "
    "--password-stdin < key.json",
    "aws": "Until then ECR's own 12-hour password works: aws ecr get-login-password | facade "
    "registry add HOST --username AWS --password-stdin",
}
"""Providers to come, and what to do meanwhile."""


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
            if name in NOT_BUILT:
                raise Invalid(f"The provider {name} is not built yet. {NOT_BUILT[name]}")
            if name not in TABLE:
                raise Invalid(
                    f"There is no provider {name!r}. Those built are: {', '.join(TABLE)}."
                )
            try:
                module = importlib.import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:
                raise Invalid(
                    f"The provider {name!r} needs packages that are not installed: "
                    f"pip install 'facade[{name}]'"
                ) from error
            make: Make = getattr(module, TABLE[name])
            self._made[name] = make(self._context)
        return self._made[name]
