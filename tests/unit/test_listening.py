"""Binding ports: both address families, and errors that say what to do."""

import socket

import pytest

from facade.errors import Invalid
from facade.listening import bind


def test_any_address_takes_both_families() -> None:
    with bind("device", "::", 0) as sock:
        port = sock.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=5).close()


def test_a_port_in_use_is_named_with_the_variable_to_set() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(Invalid, match=r"operator port 127\.0\.0\.1:\d+ is in use.*FACADE_OPERATOR"),
    ):
        bind("operator", "127.0.0.1", taken.getsockname()[1])


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(Invalid, match=r"metrics port 192\.0\.2\.1:1 cannot be listened on"):
        bind("metrics", "192.0.2.1", 1)


def test_a_name_that_does_not_resolve_is_named() -> None:
    with pytest.raises(Invalid, match=r"metrics port nowhere\.invalid:1 cannot"):
        bind("metrics", "nowhere.invalid", 1)
