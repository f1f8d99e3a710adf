"""A Google service account: its key is exchanged for an access token (Artifact Registry, gcr.io).

Guarantees: only a key of type `service_account` that can sign is stored, and of it only what signing
needs; documents that name URLs to ask or programs to run are refused. The token URI is Google's, or
the one that process configuration sets, whatever the key says. The token is presented to Google's
registries only, as user `oauth2accesstoken` (to the registry's own token service).
"""

import importlib
import json
import re
from collections.abc import Mapping
from typing import Any

from facade.control.credentials.clouds.google_exchange import GoogleExchange, Load
from facade.control.credentials.model import Offered, Prepared, Presented, StoredSecrets
from facade.control.credentials.providers import GOOGLE_TOKEN_URI, ProviderContext, missing
from facade.errors import Invalid
from facade.oci.host import RegistryHost
from facade.secret import Secret
from facade.upstream.connection import Connection
from facade.upstream.token import BasicCredentials

USERNAME = "oauth2accesstoken"
"""What Google's registries call the user whose password is an access token."""
MAX_KEY_CHARS = 16 * 1024
"""Longest private key; the largest RSA key that Google makes needs 3.5 KiB."""
MAX_FIELD_CHARS = 512

_HOSTS = re.compile(r"[a-z0-9-]+-docker\.pkg\.dev|(?:[a-z0-9-]+\.)?gcr\.io", re.ASCII)
_GOOGLE_TOKEN_URIS = frozenset(
    {
        GOOGLE_TOKEN_URI,
        "https://www.googleapis.com/oauth2/v4/token",
        "https://accounts.google.com/o/oauth2/token",  # in keys made before 2018
    }
)
_REQUIRED = ("client_email", "private_key", "private_key_id", "token_uri")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+", re.ASCII)
_UNIVERSE = "googleapis.com"


class GoogleProvider:
    """See the module.

    Arguments:
        load: imports a module (google-auth's).
    """

    exchanges = True
    eager = False

    def __init__(self, context: ProviderContext, load: Load = importlib.import_module) -> None:
        self._clock = context.clock
        self._endpoints = context.endpoints
        self._load = load
        self._exchange = GoogleExchange(
            context.http,
            context.clock,
            token_uri=context.endpoints.google_token_uri,
            load=load,
        )

    def prepare(self, offered: Offered) -> Prepared:
        if offered.username not in ("", USERNAME) or offered.secret:
            raise Invalid(
                "A Google connection takes the service account's key file, and no user name or "
                "password."
            )
        self._check_host(offered.host)
        key = self._check_document(offered.config)
        self._check_signs(key)
        return Prepared(USERNAME, {"key": Secret(json.dumps(key))})

    async def credentials(self, connection: Connection, stored: StoredSecrets) -> Presented:
        key = json.loads(stored.fields["key"].reveal())
        started = self._clock.time()
        answer = await self._exchange.token(connection, key)
        # Counted from before the request: Google's clock started later.
        return Presented(BasicCredentials(USERNAME, answer.token), started + answer.expires_in)

    def _check_host(self, host: RegistryHost) -> None:
        known = host.port is None and _HOSTS.fullmatch(host.name)
        if not known and str(host) not in self._endpoints.google_hosts:
            raise Invalid(
                f"{host} is none of Google's registries (*-docker.pkg.dev, gcr.io, *.gcr.io), so "
                "it is not told a Google token. A name of your own in front of one has to be "
                "listed in the configuration: [credentials] google_hosts."
            )

    def _check_document(self, config: Mapping[str, Any]) -> dict[str, str]:
        """What is needed of the key document, with every value checked."""
        kind = config.get("type")
        if kind != "service_account":
            raise Invalid(
                "This is no service account's key: its type must be service_account. (Credentials "
                "of people, and documents that name programs or URLs, are not accepted.)"
            )
        lacking = [name for name in _REQUIRED if not config.get(name)]
        if lacking:
            raise Invalid(f"The Google key lacks {', '.join(lacking)}. Download a new JSON key.")
        key = {"type": "service_account"}
        for name in _REQUIRED:
            value = config[name]
            limit = MAX_KEY_CHARS if name == "private_key" else MAX_FIELD_CHARS
            if not isinstance(value, str) or len(value) > limit:
                raise Invalid(
                    f"The Google key's {name} must be a text of at most {limit} characters."
                )
            key[name] = value
        if not _EMAIL.fullmatch(key["client_email"]):
            raise Invalid("The Google key's client_email is no e-mail address.")
        if config.get("universe_domain", _UNIVERSE) != _UNIVERSE:
            raise Invalid(f"The Google key is of another cloud than {_UNIVERSE}: not supported.")
        uri = key.pop("token_uri")  # which one is asked is not the key's to say
        if uri not in {*_GOOGLE_TOKEN_URIS, self._endpoints.google_token_uri}:
            raise Invalid(
                f"The Google key's token_uri is not Google's ({GOOGLE_TOKEN_URI}), so it could "
                "lead the key's signature elsewhere. Nothing was stored."
            )
        return key

    def _check_signs(self, key: Mapping[str, str]) -> None:
        try:
            crypt = self._load("google.auth.crypt")
        except ModuleNotFoundError as error:
            raise missing("google") from error
        try:
            crypt.RSASigner.from_service_account_info(key).sign(b"facade")
        except Exception:  # noqa: BLE001 - whatever a library finds wrong with it, it is no key
            # Not chained: nothing that was said about a private key is worth its risk.
            raise Invalid(
                "The Google key's private_key cannot be used: it must be an RSA key in PEM form, "
                "as in the file that Google made (with its line breaks as \\n)."
            ) from None
