"""A user name and a password or token, presented as they are (or to the registry's token service).

Guarantees: neither part can hold a character that would end an HTTP field or change its meaning;
robot names with `+` or `$` (Quay, Harbor) are kept as typed.
"""

import json

from facade.control.credentials.model import Offered, Prepared, Presented, StoredSecrets
from facade.control.credentials.providers import ProviderContext
from facade.errors import Invalid
from facade.secret import Secret
from facade.upstream.connection import Connection
from facade.upstream.token import BasicCredentials

MAX_USERNAME_CHARS = 255
MAX_SECRET_CHARS = 64 * 1024


class StaticProvider:
    """See the module."""

    exchanges = False
    eager = False

    def __init__(self, context: ProviderContext) -> None:
        pass

    def prepare(self, offered: Offered) -> Prepared:
        if offered.config:
            raise Invalid("The static provider takes a user name and a secret, and no config.")
        username = offered.username
        if not username or len(username) > MAX_USERNAME_CHARS or ":" in username:
            # RFC 7617, 2: a user-id cannot hold a colon.
            raise Invalid("Give a user name (at most 255 characters, without a colon).")
        if not username.isprintable():
            raise Invalid("The user name holds characters that cannot be printed.")
        secret = offered.secret
        if secret is None or not secret:
            raise Invalid("Give the password or token on standard input (--password-stdin).")
        if len(secret.reveal()) > MAX_SECRET_CHARS:
            raise Invalid("The password or token is too long.")
        if not secret.reveal().isprintable():
            secret = _compact_json(secret)
        return Prepared(username, {"secret": secret})

    async def credentials(self, connection: Connection, stored: StoredSecrets) -> Presented:
        return Presented(BasicCredentials(stored.username, stored.fields["secret"]))


def _compact_json(secret: Secret) -> Secret:
    """A JSON key (Google's `_json_key`) on one line. Raises Invalid for anything else."""
    try:
        document = json.loads(secret.reveal())
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Invalid("The password or token holds line breaks or control characters.")
    return Secret(json.dumps(document))
