"""What a token is asked for: never more than we need."""

import pytest

from facade.oci.reference import Repository
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Scope
from facade.upstream.scope import ResourceScope, parse_scopes, token_scope

OWN = Scope(Repository("org/app"))


@pytest.mark.parametrize(
    ("challenged", "asked"),
    [
        ("", "repository:org/app:pull"),
        ("repository:org/app:pull,push,delete", "repository:org/app:pull"),
        ("repository(plugin):org/app:pull,push", "repository(plugin):org/app:pull"),
        ("repository:other/secret:pull", "repository:org/app:pull"),
        ("repository(plugin):other/secret:pull", "repository:org/app:pull"),
        ("registry:catalog:*", "repository:org/app:pull"),
        ("nonsense", "repository:org/app:pull"),
    ],
)
def test_only_our_own_repository_and_actions(challenged: str, asked: str) -> None:
    assert token_scope(Challenge("bearer", {"scope": challenged}), OWN) == asked


def test_a_ping_asks_for_nothing() -> None:
    assert token_scope(Challenge("bearer", {"scope": "registry:catalog:*"}), Scope(None)) == ""


def test_several_scopes_and_names_with_colons() -> None:
    assert parse_scopes("repository:a/b:pull,push registry.io:x:5000/y:pull junk :: a:b") == (
        ResourceScope("repository", "a/b", ("pull", "push")),
        ResourceScope("registry.io", "x:5000/y", ("pull",)),
    )
