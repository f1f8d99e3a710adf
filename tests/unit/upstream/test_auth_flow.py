"""The authorization of a request, without any network."""

import pytest

from facade.oci.host import RegistryHost
from facade.secret import Secret
from facade.upstream.auth_flow import Answer, Ask, Flow, Send, authorize
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection

BEARER = (Challenge("bearer", {"realm": "https://auth.example/token"}),)


def connection(provider: str = "static") -> Connection:
    return Connection("c", RegistryHost.parse("registry.example"), provider)


def token(value: str | None, name: str = "") -> Authorization:
    return Authorization(None if value is None else Secret(value), name or str(value))


def run(flow: Flow, *replies: Authorization | Answer) -> list[Ask | Send]:
    """Every step the flow takes when it gets these replies; it must end with the last one."""
    steps = [next(flow), *map(flow.send, replies[:-1])]
    with pytest.raises(StopIteration):
        flow.send(replies[-1])
    return steps


def test_a_known_scheme_costs_one_send() -> None:
    good = token("Bearer 1")
    assert run(authorize(connection()), good, Answer(200)) == [Ask(), Send(good)]


def test_a_first_use_costs_a_challenge() -> None:
    nothing, good = token(None), token("Bearer 1")
    assert run(authorize(connection()), nothing, Answer(401, BEARER), good, Answer(200)) == [
        Ask(),
        Send(nothing),
        Ask(challenge=BEARER),
        Send(good),
    ]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_replaced_once(status: int) -> None:
    old, new = token("Bearer old"), token("Bearer new")
    replies = (old, Answer(status, BEARER), new, Answer(status, BEARER))
    assert run(authorize(connection()), *replies) == [
        Ask(),
        Send(old),
        Ask(challenge=BEARER, refused=old.id),
        Send(new),
    ]


def test_a_challenged_token_that_is_refused_is_replaced_once() -> None:
    nothing, old, new = token(None), token("Bearer old"), token("Bearer new")
    replies = (nothing, Answer(401, BEARER), old, Answer(401, BEARER), new, Answer(401, BEARER))
    assert [type(step) for step in run(authorize(connection()), *replies)] == [
        *(Ask, Send, Ask, Send, Ask, Send)
    ]


def test_a_wrong_password_is_sent_once() -> None:
    password = token("Basic x", "first")
    again = token("Basic x", "second")
    steps = run(authorize(connection()), password, Answer(401, BEARER), again)
    assert steps == [Ask(), Send(password), Ask(challenge=BEARER, refused="first")]


def test_nothing_to_present_is_not_presented_again() -> None:
    nothing = token(None)
    steps = run(authorize(connection()), nothing, Answer(401, BEARER), nothing)
    assert steps == [Ask(), Send(nothing), Ask(challenge=BEARER)]
    assert run(authorize(connection()), nothing, Answer(401)) == [Ask(), Send(nothing)]
    assert run(authorize(connection()), nothing, Answer(403)) == [Ask(), Send(nothing)]


def test_400_means_an_expired_token_on_ecr_only() -> None:
    old, new = token("Basic old"), token("Basic new")
    assert len(run(authorize(connection("aws")), old, Answer(400), new, Answer(200))) == 4
    assert len(run(authorize(connection("static")), old, Answer(400))) == 2


def test_a_refusal_by_a_redirects_target_is_not_about_our_token() -> None:
    good = token("Bearer 1")
    elsewhere = Answer(403, from_registry=False)
    assert run(authorize(connection()), good, elsewhere) == [Ask(), Send(good)]


@pytest.mark.parametrize("status", [200, 206, 304, 404, 416, 429, 500, 503])
def test_other_answers_stand(status: int) -> None:
    good = token("Bearer 1")
    assert run(authorize(connection("aws")), good, Answer(status, BEARER)) == [Ask(), Send(good)]
