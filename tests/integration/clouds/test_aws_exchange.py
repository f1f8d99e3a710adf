"""The AWS provider against a cloud that checks signatures, trust, external IDs and time."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.errors import Upstream
from facade.oci.host import RegistryHost
from facade.reasons import Reason
from tests.support.cloud import State
from tests.support.cloud_parts import EXTERNAL_ID, ROLE, Clouds, clouds, keys_of
from tests.support.raw_http import Data, Reply


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Clouds]:
    async with clouds(tmp_path, SystemClock(), attempts=1) as parts:
        yield parts


async def _refused(parts: Clouds, words: str, **changes: object) -> Upstream:
    connection = await parts.connect_aws(**changes)
    with pytest.raises(Upstream, match=words) as caught:
        await parts.present(connection)
    return caught.value


async def test_a_role_is_assumed_and_a_token_given(parts: Clouds) -> None:
    before = parts.clock.time()
    presented = await parts.present(await parts.connect_aws())
    assert presented.basic is not None
    assert presented.basic.username == "AWS"
    assert parts.aws.tokens.state(presented.basic.password.reveal()) is State.GOOD
    assert presented.expires_at is not None
    assert before + 43_190 < presented.expires_at <= parts.clock.time() + 43_201
    assert parts.aws.operations == ["AssumeRole", "GetAuthorizationToken"]


async def test_the_session_is_named_after_the_connection(parts: Clouds) -> None:
    connection = await parts.connect_aws()
    await parts.present(connection)
    assert f"RoleSessionName=facade-{connection.id}"[:80].encode() in parts.aws.requests[0].body


async def test_base_credentials_of_the_platform(parts: Clouds) -> None:
    temporary = parts.aws.add_key(temporary=True)
    parts.aws.add_role(ROLE, temporary, external_id=EXTERNAL_ID)
    parts.platform.keys = keys_of(temporary)
    connection = await parts.connect_aws(access_key_id=None, secret_access_key=None)
    assert (await parts.present(connection)).basic is not None


async def test_no_such_role(parts: Clouds) -> None:
    error = await _refused(parts, "the role does not exist", role_arn=ROLE + "-gone")
    assert (error.reason, error.status) == (Reason.UPSTREAM_REFUSED, 403)


async def test_a_wrong_external_id(parts: Clouds) -> None:
    await _refused(parts, "expects another external ID than the one given", external_id="wrong")


async def test_an_external_id_that_is_missing(parts: Clouds) -> None:
    await _refused(parts, "--aws-external-id", external_id=None)


async def test_a_role_that_trusts_somebody_else(parts: Clouds) -> None:
    stranger = parts.aws.add_key()
    await _refused(
        parts,
        "trust policy does not name the access key given",
        access_key_id=stranger.id,
        secret_access_key=stranger.secret,
    )


async def test_a_base_key_that_is_gone(parts: Clouds) -> None:
    del parts.aws.keys[parts.key.id]
    await _refused(parts, "does not know the access key given")


async def test_a_wrong_secret(parts: Clouds) -> None:
    await _refused(parts, "secret access key does not belong", secret_access_key="x" * 40)


async def test_platform_credentials_that_have_expired(parts: Clouds) -> None:
    ended = parts.aws.add_key(ends=parts.clock.time() - 1, temporary=True)
    parts.platform.keys = keys_of(ended)
    await _refused(
        parts,
        "platform's own AWS credentials have expired",
        access_key_id=None,
        secret_access_key=None,
    )


async def test_a_role_that_may_not_have_tokens(parts: Clouds) -> None:
    parts.aws.add_role(ROLE, parts.key, external_id=EXTERNAL_ID, may_pull=False)
    await _refused(parts, "Allow it ecr:GetAuthorizationToken")


async def test_a_session_that_ended_at_once(parts: Clouds) -> None:
    parts.aws.manner.session_lifetime = -1
    await _refused(parts, "session for .* had expired")


@pytest.mark.parametrize(("ahead", "way"), [(1800, "behind"), (-1800, "ahead of")])
async def test_a_clock_that_is_off(parts: Clouds, ahead: float, way: str) -> None:
    parts.aws.manner.clock_ahead = ahead
    await _refused(parts, rf"the clock here is 1(79|80)\d s {way} AWS's")


async def test_throttling(parts: Clouds) -> None:
    parts.aws.manner.refusals.append((400, "Throttling", "Rate exceeded"))
    error = await _refused(parts, "throttles requests")
    assert error.reason is Reason.UPSTREAM_RATE_LIMITED


async def test_an_outage(parts: Clouds) -> None:
    parts.aws.manner.refusals.append((503, "ServiceUnavailable", "down"))
    await _refused(parts, "STS failed for .*503")


async def test_a_region_without_sts(parts: Clouds) -> None:
    parts.aws.manner.refusals.append((403, "RegionDisabledException", "not activated"))
    await _refused(parts, "STS is not activated in the region")


async def test_an_endpoint_that_cannot_be_reached(parts: Clouds) -> None:
    connection = await parts.connect_aws()
    await parts.aws.__aexit__(None, None, None)
    with pytest.raises(Upstream, match="cannot be reached") as caught:
        await parts.present(connection)
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    await parts.aws.__aenter__()


async def test_an_endpoint_that_is_something_else(parts: Clouds) -> None:
    parts.aws.manner.raw = Reply(200, content=Data(b"<html>Welcome to the hotel Wi-Fi</html>"))
    await _refused(parts, "STS endpoint .* not understood")


async def test_an_endpoint_at_an_inner_address_is_refused(tmp_path: Path) -> None:
    async with clouds(tmp_path, SystemClock(), allow=()) as parts:
        error = await _refused(parts, "allow_cidrs")
        assert error.reason is Reason.UPSTREAM_UNREACHABLE
        assert parts.aws.requests == []


async def test_repaired_platform_credentials_work_at_once(parts: Clouds) -> None:
    ended = parts.aws.add_key(ends=parts.clock.time() - 1)
    parts.platform.keys = keys_of(ended)
    connection = await parts.connect_aws(access_key_id=None, secret_access_key=None)
    with pytest.raises(Upstream):
        await parts.present(connection)
    parts.platform.keys = keys_of(parts.key)
    assert (await parts.present(connection)).basic is not None


async def test_a_name_of_the_platforms_own_in_front_of_ecr(parts: Clouds) -> None:
    connection = await parts.connect_aws(RegistryHost.parse("images.acme.example"))
    assert (await parts.present(connection)).basic is not None


async def test_whatever_the_environment_says_our_endpoint_is_asked(tmp_path: Path) -> None:
    """AWS_ENDPOINT_URL, proxies and a CA bundle in the environment lead nowhere else."""
    async with clouds(tmp_path, SystemClock(), attempts=1) as parts:
        script = tmp_path / "ask.py"
        script.write_text(_ASK)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            parts.aws.url,
            env={
                "PYTHONPATH": str(Path.cwd()),
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9/evil",
                "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9/evil",
                "AWS_CA_BUNDLE": "/nonexistent",
                "AWS_MAX_ATTEMPTS": "9",
                "AWS_USE_FIPS_ENDPOINT": "true",
                "HTTP_PROXY": "http://127.0.0.1:9",
                "HTTPS_PROXY": "http://127.0.0.1:9",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": parts.key.id,
                "AWS_SECRET_ACCESS_KEY": parts.key.secret,
                "AWS_EC2_METADATA_DISABLED": "true",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert out.decode().strip() == "AWS", err.decode()
        assert parts.aws.operations == ["AssumeRole", "GetAuthorizationToken"]


_ASK = f"""
import asyncio, sys
from facade.clock import SystemClock
from facade.control.credentials.model import Offered, StoredSecrets
from facade.control.credentials.providers import Endpoints, ProviderContext, Providers
from facade.oci.host import RegistryHost
from facade.upstream.addresses import AddressPolicy
from facade.upstream.cloud_client import CloudClient
from facade.upstream.connection import Connection

HOST = RegistryHost.parse("123456789012.dkr.ecr.eu-central-1.amazonaws.com")
CONFIG = {{"role_arn": {ROLE!r}, "external_id": {EXTERNAL_ID!r}}}

async def main():
    http = CloudClient(addresses=AddressPolicy(["127.0.0.0/8"]), clock=SystemClock())
    endpoints = Endpoints(aws_sts=sys.argv[1], aws_ecr=sys.argv[1])
    aws = Providers(ProviderContext(SystemClock(), http, endpoints)).get("aws")
    prepared = aws.prepare(Offered(HOST, config=CONFIG))
    stored = StoredSecrets(prepared.username, prepared.fields)
    presented = await aws.credentials(Connection("c1", HOST, "aws"), stored)
    print(presented.basic.username)
    await http.close()

asyncio.run(main())
"""


async def test_the_event_loop_goes_on_while_aws_is_asked(parts: Clouds) -> None:
    """Importing AWS's packages and reading their tables takes half a second: in a thread.

    Judged by the CPU time of this thread, which a busy machine does not change.
    """
    connection = await parts.connect_aws()
    before = time.thread_time()
    await parts.present(connection)
    assert time.thread_time() - before < 0.25
