"""Whatever goes wrong with a cloud, no key, session or token shows: canaries are looked for."""

import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.errors import FacadeError
from tests.support.broker import APP, BASIC
from tests.support.cloud_google import acme_account
from tests.support.cloud_parts import EXTERNAL_ID, Clouds, clouds
from tests.support.raw_http import Data, Reply, Seen


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Clouds]:
    async with clouds(tmp_path, SystemClock(), attempts=1) as parts:
        yield parts


def _canaries(parts: Clouds) -> Iterable[str]:
    """Everything that is secret by now."""
    account = acme_account()
    yield from account.pem.splitlines()[1:-1]
    yield from (parts.key.id, parts.key.secret, EXTERNAL_ID)
    for session in parts.aws.sessions:
        yield from (session.secret, str(session.session_token))
    yield from parts.aws.tokens.issued
    yield from parts.google.tokens.issued
    for seen in parts.google.requests:
        yield seen.body.decode().partition("assertion=")[2][:200]


def _nothing_in(text: str, parts: Clouds) -> None:
    found = [canary for canary in _canaries(parts) if canary and canary in text]
    assert found == []


def _echo(seen: Seen) -> Reply:
    """A service that repeats what it was sent, in every field that it has."""
    said = seen.body.decode() + str(seen.headers)
    return Reply(400, content=Data(said.encode()))


def _refuse(code: str) -> Callable[[Clouds], None]:
    def refuse(parts: Clouds) -> None:
        parts.aws.manner.refusals.append((403, code, f"you sent {parts.key.secret} {EXTERNAL_ID}"))
        parts.google.manner.refusals.append((400, code, "x"))

    return refuse


def _broken_ecr(parts: Clouds) -> None:
    parts.aws.manner.token = lambda password: f"ROOT:{password}".encode()
    parts.google.manner.raw = Reply(200, content=Data(b'{"id_token":"x"}'))


def _expired(parts: Clouds) -> None:
    parts.aws.manner.session_lifetime = -1
    parts.google.accounts.clear()


def _wrong_session(parts: Clouds) -> None:
    """ECR quotes the session's token when the signature does not match."""
    parts.aws.manner.clock_ahead = 100_000
    parts.google.manner.clock_ahead = 100_000


def _html(parts: Clouds) -> None:
    raw = Reply(500, content=Data(f"<html>{parts.key.secret}</html>".encode()))
    parts.aws.manner.raw = parts.google.manner.raw = raw


FAULTS = [
    _refuse("AccessDenied"),
    _refuse("SignatureDoesNotMatch"),
    _refuse("SomethingNew"),
    _broken_ecr,
    _expired,
    _wrong_session,
    _html,
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_error_and_no_traceback_shows_a_secret(
    parts: Clouds, fault: Callable[[Clouds], None]
) -> None:
    fault(parts)
    for connection in (await parts.connect_aws(), await parts.connect_google()):
        with pytest.raises(FacadeError) as caught:
            await parts.present(connection)
        _nothing_in("".join(traceback.format_exception(caught.value)), parts)


async def test_a_service_that_repeats_what_it_was_sent(parts: Clouds) -> None:
    connections = (await parts.connect_aws(), await parts.connect_google())
    for connection in connections:
        await parts.present(connection)  # so that there are sessions and assertions
    replies = [_echo(seen) for seen in (*parts.aws.requests, *parts.google.requests)]
    for reply in replies:
        parts.aws.manner.raw = parts.google.manner.raw = reply
        for connection in connections:
            with pytest.raises(FacadeError) as caught:
                await parts.present(connection)
            _nothing_in("".join(traceback.format_exception(caught.value)), parts)


async def test_no_repr_shows_a_secret(parts: Clouds) -> None:
    aws, google = await parts.connect_aws(), await parts.connect_google()
    shown = [
        repr(await parts.present(aws)),
        repr(await parts.present(google)),
        repr(await parts.broker.authorization(aws, APP, challenge=BASIC)),
        repr(vars(parts.broker)),
        repr(parts.store.secrets(aws.id)),
        repr(parts.store.secrets(google.id)),
        repr(parts.store.list()),
    ]
    _nothing_in("".join(shown), parts)


def _database(folder: Path) -> str:
    """The database's files as they lie on the disk, journals included."""
    files = list(folder.glob("facade.db*"))
    assert files
    return "".join(path.read_bytes().decode("latin-1") for path in files)


async def test_the_database_holds_none(parts: Clouds, tmp_path: Path) -> None:
    for connection in (await parts.connect_aws(), await parts.connect_google()):
        await parts.present(connection)
    _nothing_in(_database(tmp_path), parts)


async def test_log_lines_show_none(parts: Clouds, caplog: pytest.LogCaptureFixture) -> None:
    """At the level at which libraries may speak (`observability.logs`): warnings."""
    caplog.set_level(logging.WARNING)
    connections = (await parts.connect_aws(), await parts.connect_google())
    for connection in connections:
        await parts.present(connection)
    _wrong_session(parts)
    for connection in connections:
        with pytest.raises(FacadeError):
            await parts.present(connection)
    _nothing_in(caplog.text, parts)
