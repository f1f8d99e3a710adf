"""What an operator orders, and whether it makes sense before anything is asked upstream. Pure."""

from typing import Protocol

from facade.device import parse_fleet, parse_name
from facade.errors import Invalid
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.platform import Platform
from facade.oci.reference import Repository, Tag
from facade.target import parse_version

MAX_TAGS = 2000


class ImportOrder(Protocol):
    """What to import, for whom; `control.api` has it as a value."""

    @property
    def host(self) -> RegistryHost: ...
    @property
    def repository(self) -> Repository: ...
    @property
    def references(self) -> tuple[Tag | Digest, ...]: ...
    @property
    def fleet(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def version(self) -> str | None: ...
    @property
    def platforms(self) -> tuple[str, ...]: ...
    @property
    def with_referrers(self) -> bool: ...
    @property
    def warm(self) -> bool: ...


def check_order(order: ImportOrder) -> str:
    """The name of the artifacts that `order` makes.

    Raises Invalid when the order as a whole makes no sense.
    """
    parse_fleet(order.fleet)
    if not order.references:
        raise Invalid("Name at least one tag.")
    if len(order.references) > MAX_TAGS:
        raise Invalid(f"One import takes at most {MAX_TAGS} tags.")
    if order.version is not None:
        parse_version(order.version)
        if len(set(order.references)) > 1:
            raise Invalid("A version can be given for a single tag only.")
    for platform in order.platforms:
        Platform.parse(platform)
    if order.name is not None:
        return parse_name(order.name, "artifact name")
    try:
        return parse_name(order.repository.last_component, "artifact name")
    except Invalid as error:
        raise Invalid(f"{error.message} Give one with --name.", reason=error.reason) from error
