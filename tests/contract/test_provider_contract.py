"""What every provider keeps: one suite, run over all of the table."""

import json
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from facade.control.credentials.model import Offered, Presented, Provider, StoredSecrets
from facade.control.credentials.providers import TABLE
from facade.errors import FacadeError, Invalid
from facade.oci.host import RegistryHost
from facade.secret import Secret
from facade.upstream.connection import Connection
from tests.support.clock import FakeClock
from tests.support.cloud_google import acme_account
from tests.support.cloud_parts import ARTIFACT_REGISTRY, ECR, Clouds, aws_config, clouds


@dataclass
class Subject:
    """A provider, and what it accepts."""

    name: str
    provider: Provider
    offered: Offered
    secrets: tuple[str, ...] = field(repr=False)
    parts: Clouds

    @property
    def connection(self) -> Connection:
        return Connection("c1", self.offered.host, self.name)

    async def present(self) -> Presented:
        """Through what storing does to the fields: texts, sealed and opened."""
        prepared = self.provider.prepare(self.offered)
        texts = json.loads(json.dumps({k: v.reveal() for k, v in prepared.fields.items()}))
        fields = {name: Secret(text) for name, text in texts.items()}
        return await self.provider.credentials(
            self.connection, StoredSecrets(prepared.username, fields)
        )


def _offered(name: str, parts: Clouds) -> tuple[Offered, tuple[str, ...]]:
    registry = RegistryHost("registry.example")
    if name == "static":
        return Offered(registry, "robot", Secret("hunter2-canary")), ("hunter2-canary",)
    if name == "google":
        account = acme_account()
        offered = Offered(ARTIFACT_REGISTRY, config=account.document())
        return offered, (account.pem.splitlines()[2], account.key_id)
    if name == "aws":
        config = aws_config(parts.key)
        return Offered(ECR, config=config), (parts.key.secret, parts.key.id, config["external_id"])
    return Offered(registry), ()


@pytest.fixture(params=TABLE)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    async with clouds(tmp_path, FakeClock(auto=True)) as parts:
        name: str = request.param
        offered, secrets = _offered(name, parts)
        yield Subject(name, parts.providers.get(name), offered, secrets, parts)


async def test_what_is_stored_shows_no_secret(subject: Subject) -> None:
    prepared = subject.provider.prepare(subject.offered)
    for shown in (repr(prepared), repr(subject.offered), prepared.username):
        assert not any(secret in shown for secret in subject.secrets)


async def test_the_user_name_can_be_listed(subject: Subject) -> None:
    username = subject.provider.prepare(subject.offered).username
    assert username.isprintable()
    assert ":" not in username
    assert len(username) <= 255


async def test_preparing_twice_gives_the_same(subject: Subject) -> None:
    first, second = (subject.provider.prepare(subject.offered) for _ in range(2))
    assert first == second


async def test_what_is_presented_fits_a_header_and_shows_nothing(subject: Subject) -> None:
    presented = await subject.present()
    if presented.basic is not None:
        assert presented.basic.header.reveal().isprintable()
        assert presented.basic.password.reveal() not in repr(presented)
    assert not any(secret in repr(presented) for secret in subject.secrets)


async def test_what_is_exchanged_ends_and_nothing_else_does(subject: Subject) -> None:
    presented = await subject.present()
    assert (presented.expires_at is not None) == subject.provider.exchanges
    if presented.expires_at is not None:
        assert presented.basic is not None
        assert presented.expires_at > subject.parts.clock.time() + 60


async def test_an_exchange_gives_a_new_token_each_time(subject: Subject) -> None:
    first, second = await subject.present(), await subject.present()
    assert (first.basic != second.basic) == subject.provider.exchanges


@pytest.mark.parametrize(
    "config",
    [
        {"canary": "canary"},
        {"type": "canary", "role_arn": "canary"},
        {"role_arn": ["canary"], "type": ["canary"]},
        {"type": "service_account", "private_key": "canary", "role_arn": None},
        {"": None},
    ],
)
async def test_a_config_of_another_kind_is_refused_and_not_repeated(
    subject: Subject, config: dict[str, Any]
) -> None:
    offered = Offered(subject.offered.host, "user-canary", Secret("canary"), config)
    with pytest.raises(Invalid) as caught:
        subject.provider.prepare(offered)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


async def test_a_config_that_is_not_known_is_refused_alone_too(subject: Subject) -> None:
    with pytest.raises(Invalid):
        subject.provider.prepare(Offered(subject.offered.host, config={"surprise": "canary"}))


async def test_every_failure_to_exchange_is_ours_and_shows_nothing(subject: Subject) -> None:
    if not subject.provider.exchanges:
        return
    await subject.parts.aws.__aexit__(None, None, None)
    await subject.parts.google.__aexit__(None, None, None)
    with pytest.raises(FacadeError) as caught:
        await subject.present()
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(secret in shown for secret in subject.secrets)
    await subject.parts.aws.__aenter__()
    await subject.parts.google.__aenter__()
