"""`facade artifact`, `fleet`, `cache` from the outside."""

import json

import pytest

from tests.support.operator_catalog import DIGEST, Verified
from tests.support.operator_server import CommandLine
from tests.support.operator_services import Fakes

IMPORT = ("artifact", "import", "ghcr.io/org/app:v1", "ghcr.io/org/app:v2", "--fleet", "dev")


def test_importing_prints_an_outcome_per_tag(facade: CommandLine, fakes: Fakes) -> None:
    ran = facade(*IMPORT)
    assert ran.code == 0
    assert ran.stdout.splitlines() == [
        f"ghcr.io/org/app:{tag}\timported\tdev/app/{tag}\t{DIGEST}" for tag in ("v1", "v2")
    ]
    assert ran.stderr.splitlines() == ["v1 imported", "v2 imported"]
    assert facade("audit").stdout.endswith("\tok: 2 imported\n")
    assert len(fakes.importer.orders) == 1


def test_one_bad_tag_makes_the_exit_status_1_and_hides_nothing(
    facade: CommandLine, fakes: Fakes
) -> None:
    fakes.importer.bad = frozenset({"v1"})
    ran = facade(*IMPORT, "--json")
    assert ran.code == 1
    results = json.loads(ran.stdout)["results"]
    assert [result["status"] for result in results] == ["failed", "imported"]
    assert "1 of 2 failed" in ran.stderr


def test_several_repositories_are_one_call_each_and_joined(
    facade: CommandLine, fakes: Fakes
) -> None:
    ran = facade(
        *("artifact", "import", "ghcr.io/org/app:v1", "quay.io/org/db:v1", "ghcr.io/org/app:v2"),
        *("--fleet", "dev", "--platform", "linux/arm64", "--with-referrers", "--warm", "--json"),
    )
    assert ran.code == 0
    results = json.loads(ran.stdout)["results"]
    assert [(result["host"], result["tag"]) for result in results] == [
        ("ghcr.io", "v1"),
        ("ghcr.io", "v2"),
        ("quay.io", "v1"),
    ]
    first = fakes.importer.orders[0]
    assert first.platforms == ("linux/arm64",)
    assert first.with_referrers
    assert first.warm


def test_a_repository_that_fails_as_a_whole_does_not_hide_the_others(
    facade: CommandLine,
) -> None:
    ran = facade(
        *("artifact", "import", "ghcr.io/org/app:v1", "quay.io/org/Bad:v1", "--fleet", "dev"),
    )
    assert ran.code == 2  # the name is wrong: nothing was sent
    ran = facade(
        *("artifact", "import", "ghcr.io/org/app:v1", "quay.io/org/db:v1", "quay.io/org/db:v2"),
        *("--fleet", "dev", "--version", "v9", "--json"),
    )
    assert ran.code == 1
    results = json.loads(ran.stdout)["results"]
    assert [result["status"] for result in results] == ["imported", "failed", "failed"]
    assert "One version" in results[1]["error"]


def test_a_digest_can_be_named(facade: CommandLine, fakes: Fakes) -> None:
    ran = facade("artifact", "import", f"ghcr.io/org/app:v1@{DIGEST}", "--fleet", "dev")
    assert ran.code == 0
    assert fakes.importer.orders[0].references == (DIGEST,)
    assert f"ghcr.io/org/app@{DIGEST}" in ran.stdout


@pytest.mark.parametrize("image", ["app:v1", "ghcr.io/org/app", "ghcr.io/org/app:", "ghcr.io:v1"])
def test_what_names_no_tag_is_a_usage_error(facade: CommandLine, fakes: Fakes, image: str) -> None:
    assert facade("artifact", "import", image, "--fleet", "dev").code == 2
    assert not fakes.importer.orders


def test_progress_is_a_bar_on_a_terminal(facade: CommandLine) -> None:
    facade.terminal = True
    ran = facade(*IMPORT)
    assert ran.code == 0
    assert "2/2" in ran.stderr
    assert "STATUS" in ran.stdout


def test_artifacts_are_listed_shown_verified_warmed_and_withdrawn(
    facade: CommandLine, fakes: Fakes
) -> None:
    fakes.artifacts.put("dev", "app", "v1")
    assert facade("artifact", "list", "--fleet", "dev").stdout.startswith("dev/app/v1\tghcr.io/")
    shown = facade("artifact", "show", "dev/app/v1").stdout
    assert str(DIGEST) in shown
    assert "4.0 KiB" in shown
    assert facade("artifact", "verify", "dev/app/v1").code == 0
    assert facade("artifact", "warm", "dev/app/v1").code == 0
    assert facade("cache", "warm", "dev/app/v1").code == 0
    withdrawn = facade("artifact", "withdraw", "dev/app/v1", "--json")
    assert json.loads(withdrawn.stdout) == {"target": "dev/app/v1", "withdrawn": True}
    assert facade("artifact", "show", "dev/app/v1").code == 1


def test_an_artifact_that_is_no_longer_whole_exits_1(facade: CommandLine, fakes: Fakes) -> None:
    fakes.artifacts.put("dev", "app", "v1")
    fakes.artifacts.verdict = Verified(problems=[("sha256:1", "gone upstream")])
    ran = facade("artifact", "verify", "dev/app/v1")
    assert ran.code == 1
    assert "sha256:1: gone upstream" in ran.stdout
    assert "NOT whole" in ran.stdout


def test_a_change_that_is_pending_says_so(facade: CommandLine, fakes: Fakes) -> None:
    fakes.cache.applied = False
    ran = facade("fleet", "add", "kiosks", "--json")
    assert ran.code == 0
    assert json.loads(ran.stdout)["pending"] is True
    assert "has not taken this up yet" in ran.stderr


def test_fleets(facade: CommandLine, fakes: Fakes) -> None:
    assert facade("fleet", "add", "kiosks").stdout == "Added the fleet kiosks.\n"
    assert [line.split("\t")[0] for line in facade("fleet", "list").stdout.splitlines()] == [
        "dev",
        "kiosks",
    ]
    fakes.fleets.offline = True
    refused = facade("fleet", "add", "more")
    assert refused.code == 1
    assert "facade trust delegate more" in refused.stderr


def test_the_cache(facade: CommandLine) -> None:
    assert "objects: " in facade("cache", "status").stdout
    assert facade("cache", "verify").stdout == "2 objects checked, 0 quarantined.\n"
    assert facade("cache", "prune").stdout == "1 objects removed, 5 B.\n"
