"""STS AssumeRole and ECR GetAuthorizationToken through `aiobotocore`, over the checked transport.

Guarantees: both services are asked at the URLs given and nowhere else, by one request each, whatever
AWS_* variables and profiles say about endpoints, proxies, CAs or retries; AWS's packages are imported
and their tables read in a thread, at first use. Refusals are raised in words (`aws_refusals`); what
AWS said is not chained to them, since it may quote a session token.
"""

import asyncio
import base64
import binascii
import importlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from facade.clock import Clock
from facade.control.credentials.clouds.aws_http import Load, http_session
from facade.control.credentials.clouds.aws_keys import Keys, PlatformKeys, platform_keys
from facade.control.credentials.clouds.aws_refusals import (
    AwsError,
    assume_role_refusal,
    registry_token_refusal,
)
from facade.control.credentials.clouds.ecr import Place
from facade.errors import FacadeError, Upstream
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.cloud import CloudHttp
from facade.upstream.connection import Connection

MAX_TOKEN_CHARS = 32 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)
_NOT_IN_SESSION_NAMES = re.compile(r"[^\w+=,.@-]", re.ASCII)
_MAX_SESSION_NAME_CHARS = 64


@dataclass(frozen=True, slots=True)
class RegistryToken:
    """What ECR gave. `lifetime` in seconds, on AWS's clock; not positive when it has expired."""

    password: Secret
    lifetime: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which role, for which registry, asked for where."""

    connection: Connection
    place: Place
    role_arn: str = field(repr=False)
    external_id: Secret | None = None

    @property
    def session_name(self) -> str:
        """RoleSessionName, as the customer's CloudTrail shows it."""
        name = _NOT_IN_SESSION_NAMES.sub("-", f"facade-{self.connection.id}")
        return name[:_MAX_SESSION_NAME_CHARS]


class AwsApi:
    """The two calls.

    Arguments:
        http: how they are sent.
        load: imports a module.
        platform: finds base credentials when a connection brings none.
    """

    def __init__(
        self,
        http: CloudHttp,
        clock: Clock,
        *,
        load: Load = importlib.import_module,
        platform: PlatformKeys = platform_keys,
    ) -> None:
        self._http = http
        self._clock = clock
        self._load = load
        self._platform = platform
        self._session: Any = None

    async def registry_token(self, wanted: Wanted, base: Keys | None) -> RegistryToken:
        """Assume the role, and ask ECR for a token with it.

        Arguments:
            base: None = the platform's own.

        Raises Upstream, in words, for every refusal.
        """
        try:
            session = await self._open_session()
            keys = base or await self._platform_keys(session, wanted)
            role = await self._assume_role(session, wanted, keys, given=base is not None)
            return await self._authorization_token(session, wanted, role)
        except Exception:
            # What was read from profiles and files is read again next time: it may be repaired.
            self._session = None
            raise

    async def _open_session(self) -> Any:
        if self._session is None:
            self._session = await asyncio.to_thread(self._make_session)
        return self._session

    def _make_session(self) -> Any:
        try:
            module = self._load("aiobotocore.session")
        except ModuleNotFoundError as error:
            raise Upstream(
                "Tokens of AWS need packages that are not installed here: "
                "pip install 'facade[aws]'",
                reason=Reason.UPSTREAM_REFUSED,
            ) from error
        session = module.AioSession()
        # Its tables are large; read here, in the thread, they do not stop the event loop.
        loader = session.get_component("data_loader")
        for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
            loader.load_data(name)
        for service in ("sts", "ecr"):
            for kind in ("service-2", "endpoint-rule-set-1"):
                loader.load_service_model(service, kind)
        return session

    async def _platform_keys(self, session: Any, wanted: Wanted) -> Keys:
        errors = self._load("botocore.exceptions")
        try:
            keys = await self._platform(session)
        except (errors.BotoCoreError, errors.ClientError, OSError) as error:
            raise Upstream(
                f"The platform's AWS credentials for {wanted.connection.host} cannot be read "
                f"({type(error).__name__}). Check the AWS environment and profile of this process.",
                reason=Reason.UPSTREAM_REFUSED,
            ) from None
        if keys is None:
            raise Upstream(
                f"There are no AWS credentials to assume the role for {wanted.connection.host} "
                "with. Give this process some (environment, profile, container or instance role), "
                "or connect with --aws-access-key-id.",
                reason=Reason.UPSTREAM_REFUSED,
            )
        return keys

    async def _assume_role(self, session: Any, wanted: Wanted, keys: Keys, *, given: bool) -> Keys:
        arguments = {"RoleArn": wanted.role_arn, "RoleSessionName": wanted.session_name}
        if wanted.external_id is not None:
            arguments["ExternalId"] = wanted.external_id.reveal()
        host = wanted.connection.host
        answer = await self._call(
            session,
            ("sts", wanted.place.sts_url, "assume_role"),
            wanted,
            keys,
            arguments,
            lambda error: assume_role_refusal(
                host, error, given_keys=given, external_id=wanted.external_id is not None
            ),
        )
        try:
            found = answer["Credentials"]
            return Keys(
                found["AccessKeyId"],
                Secret(found["SecretAccessKey"]),
                Secret(found["SessionToken"]),
            )
        except (KeyError, TypeError):
            raise _not_understood("STS", wanted) from None

    async def _authorization_token(self, session: Any, wanted: Wanted, keys: Keys) -> RegistryToken:
        host = wanted.connection.host
        answer = await self._call(
            session,
            ("ecr", wanted.place.ecr_url, "get_authorization_token"),
            wanted,
            keys,
            {},
            lambda error: registry_token_refusal(host, error),
        )
        try:
            found = answer["authorizationData"][0]
            text = base64.b64decode(found["authorizationToken"], validate=True).decode("ascii")
            expires_at: datetime = found["expiresAt"]
        except (KeyError, IndexError, TypeError, ValueError, binascii.Error):
            raise _not_understood("ECR", wanted) from None
        username, _, password = text.partition(":")
        if username != "AWS" or len(text) > MAX_TOKEN_CHARS or not _TOKEN.fullmatch(password):
            raise _not_understood("ECR", wanted)
        now = self._their_time(answer)
        return RegistryToken(Secret(password), expires_at.timestamp() - now)

    async def _call(
        self,
        session: Any,
        called: tuple[str, str, str],
        wanted: Wanted,
        keys: Keys,
        arguments: dict[str, str],
        refusal: Callable[[AwsError], Upstream],
    ) -> Any:
        service, url, operation = called
        errors = self._load("botocore.exceptions")
        try:
            async with self._client(session, service, url, wanted, keys) as client:
                return await getattr(client, operation)(**arguments)
        except errors.ClientError as error:
            raise refusal(self._error(error.response, _sent(wanted, keys))) from None
        except FacadeError:
            raise  # from our transport, in words
        except Exception:  # noqa: BLE001 - whatever botocore trips over in a body that AWS never sent
            raise _not_understood(service.upper(), wanted) from None

    @asynccontextmanager
    async def _client(
        self, session: Any, service: str, url: str, wanted: Wanted, keys: Keys
    ) -> AsyncIterator[Any]:
        config = self._load("aiobotocore.config").AioConfig(
            http_session_cls=http_session(self._http, wanted.connection, self._load),
            region_name=wanted.place.region,
            signature_version="v4",
            retries={"total_max_attempts": 1},  # our transport tries again
            defaults_mode="legacy",  # "auto" would ask the instance metadata service
            ignore_configured_endpoint_urls=True,
            parameter_validation=False,  # its complaints quote the values
        )
        token = keys.session_token
        async with session.create_client(
            service,
            region_name=wanted.place.region,
            endpoint_url=url,
            verify=True,
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key.reveal(),
            aws_session_token=None if token is None else token.reveal(),
            config=config,
        ) as client:
            yield client

    def _error(self, response: Any, sent: tuple[str, ...]) -> AwsError:
        found = response.get("Error", {})
        metadata = response.get("ResponseMetadata", {})
        said = _date(metadata)
        return AwsError(
            code=str(found.get("Code", "")),
            message=str(found.get("Message", "")),
            status=int(metadata.get("HTTPStatusCode", 0)),
            skew=None if said is None else self._clock.time() - said,
            sent=sent,
        )

    def _their_time(self, answer: Any) -> float:
        said = _date(answer.get("ResponseMetadata", {}))
        return self._clock.time() if said is None else said


def _sent(wanted: Wanted, keys: Keys) -> tuple[str, ...]:
    """What AWS may repeat, and we never."""
    secrets = (wanted.external_id, keys.secret_access_key, keys.session_token)
    return (
        wanted.role_arn,
        keys.access_key_id,
        *(secret.reveal() for secret in secrets if secret is not None),
    )


def _date(metadata: Any) -> float | None:
    """The answer's Date, in Unix seconds."""
    try:
        when = parsedate_to_datetime(metadata.get("HTTPHeaders", {}).get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _not_understood(service: str, wanted: Wanted) -> Upstream:
    return Upstream(
        f"The AWS {service} endpoint for {wanted.connection.host} answered with something that is "
        "not understood. Check [credentials] in the configuration, and any proxy in between.",
        reason=Reason.UPSTREAM_REFUSED,
    )
