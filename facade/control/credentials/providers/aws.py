"""An AWS role for ECR: STS AssumeRole, then ECR's authorization token.

Guarantees: role, account, region and partition agree with the registry's name before anything is stored
or asked; the whole config is sealed, the external ID and the base key's secret never shown; without a
base key the platform's own credentials are used. The token is presented as Basic, as user `AWS`, and
ends when AWS says so.
"""

import importlib
import importlib.util
import json
import re
from collections.abc import Mapping
from typing import Any

from facade.control.credentials.clouds import ecr
from facade.control.credentials.clouds.aws_api import AwsApi, Wanted
from facade.control.credentials.clouds.aws_http import Load
from facade.control.credentials.clouds.aws_keys import Keys, PlatformKeys, platform_keys
from facade.control.credentials.model import Offered, Prepared, Presented, StoredSecrets
from facade.control.credentials.providers import ProviderContext, missing
from facade.errors import Invalid
from facade.oci.host import RegistryHost
from facade.secret import Secret
from facade.upstream.connection import Connection
from facade.upstream.token import BasicCredentials

USERNAME = "AWS"
_FIELDS = ("role_arn", "region", "external_id", "access_key_id", "secret_access_key")
# STS AssumeRole, ExternalId.
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
# IAM AccessKey, AccessKeyId: AKIA… stay, ASIA… are temporary.
_ACCESS_KEY_ID = re.compile(r"\w{16,128}", re.ASCII)
_SECRET_KEY = re.compile(r"[\x21-\x7e]{16,128}", re.ASCII)


class AwsProvider:
    """See the module.

    Arguments:
        load: imports a module (aiobotocore's).
        platform: finds the platform's own credentials.
    """

    exchanges = True
    eager = False  # ECR challenges properly, and is told nothing before it does

    def __init__(
        self,
        context: ProviderContext,
        load: Load = importlib.import_module,
        platform: PlatformKeys = platform_keys,
    ) -> None:
        self._clock = context.clock
        self._endpoints = context.endpoints
        self._load = load
        self._api = AwsApi(context.http, context.clock, load=load, platform=platform)

    def prepare(self, offered: Offered) -> Prepared:
        if offered.username not in ("", USERNAME) or offered.secret:
            raise Invalid("An AWS connection takes a role, and no user name or password.")
        config = _check_config(offered.config)
        _place(offered.host, config)
        try:
            self._load("aiobotocore")
        except ModuleNotFoundError as error:
            raise missing("aws") from error
        return Prepared(USERNAME, {"config": Secret(json.dumps(config))})

    async def credentials(self, connection: Connection, stored: StoredSecrets) -> Presented:
        config: dict[str, str] = json.loads(stored.fields["config"].reveal())
        place = _place(connection.host, config)
        place = ecr.Place(
            place.region,
            self._endpoints.aws_sts or place.sts_url,
            self._endpoints.aws_ecr or place.ecr_url,
        )
        external_id, key_id = config.get("external_id"), config.get("access_key_id")
        wanted = Wanted(
            connection,
            place,
            config["role_arn"],
            None if external_id is None else Secret(external_id),
        )
        base = None if key_id is None else Keys(key_id, Secret(config["secret_access_key"]))
        started = self._clock.time()
        token = await self._api.registry_token(wanted, base)
        return Presented(BasicCredentials(USERNAME, token.password), started + token.lifetime)


def _place(host: RegistryHost, config: Mapping[str, str]) -> ecr.Place:
    return ecr.place(host, ecr.Role.parse(config["role_arn"]), config.get("region"))


def _check_config(config: Mapping[str, Any]) -> dict[str, str]:
    """The config with every value checked. Raises Invalid, repeating none."""
    unknown = sorted(set(config) - set(_FIELDS))
    if unknown:
        raise Invalid(f"An AWS config holds {', '.join(_FIELDS)}, and nothing else.")
    found = {name: value for name, value in config.items() if value not in (None, "")}
    if not all(isinstance(value, str) for value in found.values()):
        raise Invalid("The values of an AWS config are texts.")
    values: dict[str, str] = {name: value.strip() for name, value in found.items()}
    if "role_arn" not in values:
        raise Invalid("An AWS config needs a role_arn.")
    _match(values, "external_id", _EXTERNAL_ID, "2 to 1224 letters, digits and +=,.@:/-_")
    _match(values, "access_key_id", _ACCESS_KEY_ID, "an access key ID, like AKIA…")
    _match(values, "secret_access_key", _SECRET_KEY, "the secret of that access key")
    if ("access_key_id" in values) != ("secret_access_key" in values):
        raise Invalid("Give access_key_id and secret_access_key together, or neither.")
    if values.get("access_key_id", "").startswith("ASIA"):
        raise Invalid(
            "The access key is a temporary one (ASIA…), which ends within hours. Give a long-lived "
            "one (AKIA…), or none, to use the platform's own credentials."
        )
    return values


def _match(values: Mapping[str, str], name: str, pattern: re.Pattern[str], meaning: str) -> None:
    if name in values and pattern.fullmatch(values[name]) is None:
        raise Invalid(f"{name} must be {meaning}.")
