"""No credentials: nothing is presented, or a token that the registry gives to anybody."""

from facade.control.credentials.model import Offered, Prepared, Presented, StoredSecrets
from facade.control.credentials.providers import ProviderContext
from facade.errors import Invalid
from facade.upstream.connection import Connection


class AnonymousProvider:
    """See the module."""

    exchanges = False
    eager = False

    def __init__(self, context: ProviderContext) -> None:
        pass

    def prepare(self, offered: Offered) -> Prepared:
        if offered.username or offered.secret or offered.config:
            raise Invalid("An anonymous connection takes no user name, secret or config.")
        return Prepared("")

    async def credentials(self, connection: Connection, stored: StoredSecrets) -> Presented:
        return Presented(None)
