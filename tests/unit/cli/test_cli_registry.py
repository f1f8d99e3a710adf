"""`facade registry` from the outside."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from facade.errors import Upstream
from facade.reasons import Reason
from tests.support.operator_catalog import FoundTags
from tests.support.operator_server import CommandLine
from tests.support.operator_services import Fakes

ADD = ("registry", "add", "ghcr.io", "--username", "me", "--password-stdin")


def test_a_password_comes_from_stdin_and_is_shown_nowhere(
    facade: CommandLine, fakes: Fakes
) -> None:
    added = facade(*ADD, stdin="hunter2\n")
    assert added.code == 0
    secret = fakes.connections.offered[0].secret
    assert secret is not None
    assert secret.reveal() == "hunter2"
    shown = facade("registry", "show", "ghcr.io", "--json")
    assert "hunter2" not in added.stdout + added.stderr + shown.stdout + shown.stderr


def test_a_terminal_is_asked_and_does_not_echo(facade: CommandLine, fakes: Fakes) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "facade.cli.main", *ADD[:-1]],
        env={**os.environ, **facade.environ},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while b"Password or token: " not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"hunter2\n")
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert process.wait(20) == 0
    assert b"hunter2" not in shown
    secret = fakes.connections.offered[0].secret
    assert secret is not None
    assert secret.reveal() == "hunter2"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the last process has closed the other end
        return b""


@pytest.mark.parametrize("stdin", ["", "\n"])
def test_an_empty_password_is_not_sent(facade: CommandLine, fakes: Fakes, stdin: str) -> None:
    assert facade(*ADD, stdin=stdin).code == 2
    assert not fakes.connections.stored


def test_without_a_terminal_nobody_is_asked_for_a_password(facade: CommandLine) -> None:
    ran = facade("registry", "add", "ghcr.io", "--username", "me")
    assert ran.code == 2
    assert "--password-stdin" in ran.stderr


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--password-stdin",),
        ("--anonymous", "--username", "me"),
        ("--aws-role-arn", "a"),
        ("--aws-region", "eu-west-1", "--anonymous"),
        ("--aws-role-arn", "a", "--aws-region", "r", "--aws-secret-stdin"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(
    facade: CommandLine, fakes: Fakes, options: tuple[str, ...]
) -> None:
    ran = facade("registry", "add", "ghcr.io", *options, stdin="x")
    assert ran.code == 2
    assert ran.stderr.count("\n") == 1
    assert not fakes.connections.stored


def test_a_google_key_file_is_read_here_and_its_content_sent(
    facade: CommandLine, fakes: Fakes, tmp_path: Path
) -> None:
    key = tmp_path / "key.json"
    key.write_text('{"type": "service_account", "private_key": "hunter2"}')
    ran = facade("registry", "add", "europe-docker.pkg.dev", "--google-key-file", str(key))
    assert ran.code == 0
    assert fakes.connections.offered[0].config["private_key"] == "hunter2"
    key.write_text('{"private_key": "hunter2"')
    broken = facade("registry", "add", "gcr.io", "--google-key-file", str(key))
    assert broken.code == 2
    assert "hunter2" not in broken.stderr


def test_an_aws_role_with_base_keys(facade: CommandLine, fakes: Fakes) -> None:
    ran = facade(
        *("registry", "add", "1.dkr.ecr.eu-west-1.amazonaws.com", "--aws-role-arn", "arn"),
        *("--aws-region", "eu-west-1", "--aws-external-id", "x"),
        *("--aws-access-key-id", "AK", "--aws-secret-stdin"),
        stdin="hunter2\n",
    )
    assert ran.code == 0
    assert fakes.connections.offered[0].config == {
        "role_arn": "arn",
        "region": "eu-west-1",
        "external_id": "x",
        "access_key_id": "AK",
        "secret_access_key": "hunter2",
    }


def test_settings_are_sent(facade: CommandLine, fakes: Fakes, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("PEM")
    ran = facade(
        *("registry", "add", "localhost:5000", "--anonymous", "--insecure", "--ca-file", str(ca)),
        *("--auth-host", "a.example", "--auth-host", "b.example", "--proxy", "http://p:3128"),
    )
    assert ran.code == 0
    (stored,) = fakes.connections.stored.values()
    settings = stored.connection.settings
    assert settings.insecure
    assert settings.ca_pem == "PEM"
    assert settings.auth_hosts == ("a.example", "b.example")
    assert settings.proxy == "http://p:3128"
    assert "no encryption" in facade("registry", "show", "localhost:5000").stdout
    facade.terminal = True
    shown = facade("registry", "show", "localhost:5000").stdout
    assert "\x1b[31mINSECURE" in shown  # red


def test_a_list_is_plain_lines_in_a_pipe_and_one_document_as_json(facade: CommandLine) -> None:
    facade(*ADD, stdin="x")
    facade("registry", "add", "quay.io", "--anonymous")
    assert facade("registry", "list").stdout == "ghcr.io\tme\tstatic\nquay.io\t-\tanonymous\n"
    assert json.loads(facade("registry", "list", "--json").stdout) == {
        "items": [
            {"host": "ghcr.io", "username": "me", "provider": "static"},
            {"host": "quay.io", "provider": "anonymous"},
        ],
        "total": 2,
    }


def test_a_list_is_a_table_on_a_terminal(facade: CommandLine) -> None:
    facade(*ADD, stdin="x")
    facade.terminal = True
    lines = facade("registry", "list").stdout.splitlines()
    assert "HOST" in lines[0]
    assert "ghcr.io" in lines[1]


def test_a_list_longer_than_a_page_is_fetched_whole(facade: CommandLine, fakes: Fakes) -> None:
    fakes.fleets.names = [f"fleet-{number}" for number in range(205)]
    document = json.loads(facade("fleet", "list", "--json").stdout)
    assert document["total"] == len(document["items"]) == 205
    assert len({item["name"] for item in document["items"]}) == 205


def test_trying_a_connection_that_does_not_work_exits_1(facade: CommandLine, fakes: Fakes) -> None:
    facade(*ADD, stdin="x")
    assert facade("registry", "test", "ghcr.io").code == 0
    fakes.connections.refusal = Upstream("wrong password", reason=Reason.UPSTREAM_REFUSED)
    ran = facade("registry", "test", "ghcr.io", "--repository", "org/app", "--json")
    assert ran.code == 1
    assert json.loads(ran.stdout)["message"] == "wrong password"


def test_rotating_and_removing(facade: CommandLine, fakes: Fakes) -> None:
    facade(*ADD, stdin="old")
    assert facade("registry", "rotate", "ghcr.io", "--password-stdin", stdin="new").code == 0
    secret = fakes.connections.offered[-1].secret
    assert secret is not None
    assert secret.reveal() == "new"
    assert facade("registry", "remove", "ghcr.io").code == 0
    gone = facade("registry", "remove", "ghcr.io", "--json")
    assert gone.code == 1
    assert json.loads(gone.stdout) == {"error": "ghcr.io is not connected."}
    assert gone.stderr == "facade: ghcr.io is not connected.\n"


def test_rotating_can_replace_the_settings_too(facade: CommandLine, fakes: Fakes) -> None:
    facade(*ADD, stdin="old")
    ran = facade(
        "registry", "rotate", "ghcr.io", "--password-stdin", "--insecure", "--json", stdin="new"
    )
    assert json.loads(ran.stdout)["settings"]["insecure"] is True
    assert len(fakes.connections.offered) == 2
    facade("registry", "add", "quay.io", "--anonymous")
    ran = facade("registry", "rotate", "quay.io", "--auth-host", "auth.example")
    assert (ran.code, ran.stdout) == (0, "The settings of quay.io were replaced.\n")


def test_tags_say_when_they_were_clipped(facade: CommandLine, fakes: Fakes) -> None:
    fakes.browse.found = FoundTags(("v2", "v1"), clipped=True, pages=9)
    ran = facade("registry", "tags", "docker.io/alpine", "--match", "v*", "--all")
    assert ran.code == 0
    assert ran.stdout == "v2\nv1\n"
    assert "clipped after 2 tags in 9 pages, at v2 " in ran.stderr
    assert fakes.browse.asked == [("docker.io", "library/alpine", True, "v*")]


def test_the_order_of_tags_is_labelled_a_best_effort(facade: CommandLine, fakes: Fakes) -> None:
    fakes.browse.found = FoundTags(("v2", "v1"))
    shown = CommandLine(facade.environ, terminal=True)("registry", "tags", "ghcr.io/org/app")
    assert "Newest-likely first: a best effort" in shown.stderr
    assert facade("registry", "tags", "ghcr.io/org/app").stderr == ""


@pytest.mark.parametrize("text", ["alpine", "docker.io", "docker.io/", "/x", "docker.io/UPPER"])
def test_what_is_no_host_and_repository_is_a_usage_error(facade: CommandLine, text: str) -> None:
    assert facade("registry", "tags", text).code == 2


def test_what_a_registry_says_moves_no_cursor(facade: CommandLine, fakes: Fakes) -> None:
    fakes.browse.found = FoundTags(("\x1b[2Jv1",))
    ran = facade("registry", "tags", "ghcr.io/org/app")
    assert "\x1b" not in ran.stdout
    assert "v1" in ran.stdout
