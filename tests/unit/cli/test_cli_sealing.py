"""`facade sealing` from the outside."""

import json

from facade.errors import Conflict
from tests.support.operator_server import CommandLine
from tests.support.operator_services import Fakes


def test_rotating_says_what_came_of_it(facade: CommandLine, fakes: Fakes) -> None:
    done = facade("sealing", "rotate")
    assert done.code == 0
    assert "Sealed 2 connections again with key key1; 0ld opens nothing any more." in done.stdout
    assert json.loads(facade("sealing", "rotate", "--json").stdout)["key_id"] == "key2"


def test_a_failure_is_one_line(facade: CommandLine, fakes: Fakes) -> None:
    fakes.sealing.failure = Conflict("The sealing key file is another one.")
    failed = facade("sealing", "rotate")
    assert (failed.code, failed.stdout) == (1, "")
    assert failed.stderr == "facade: The sealing key file is another one.\n"
