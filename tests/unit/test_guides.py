"""The guides say nothing that is not there: named tests exist, and so do the commands of a ceremony."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from facade.cli.main import build
from facade.cli.session import Session
from facade.reasons import Reason

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "deploy" / "guides"
_TEST = re.compile(
    r"`((?:unit|integration|attacks|faults|contract|clients)/[\w/]+\.py)(?:::(\w+))?`"
)
_COMMAND = re.compile(r"facade trust ([a-z]+)")


def named_tests(text: str) -> list[tuple[str, str]]:
    return _TEST.findall(text)


@pytest.mark.parametrize(("guide", "least"), [("threat-model.md", 50), ("faults.md", 35)])
def test_every_claim_names_a_test_that_exists(guide: str, least: int) -> None:
    named = named_tests((GUIDES / guide).read_text())
    assert len(named) > least
    missing = []
    for path, function in named:
        file = ROOT / "tests" / path
        defined = set()
        if file.exists():
            nodes = ast.walk(ast.parse(file.read_text()))
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
            defined = {node.name for node in nodes if isinstance(node, kinds)}
        if not defined or (function and function not in defined):
            missing.append(f"{path}::{function}")
    assert missing == []


def test_every_row_of_the_faults_names_a_test() -> None:
    text = (GUIDES / "faults.md").read_text().partition("## What clients print")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    faults = [row for row in rows if not row.startswith("| fault |")]
    assert len(faults) > 30
    assert [row for row in faults if not named_tests(row)] == []


def test_the_events_that_the_faults_name_are_logged() -> None:
    text = (GUIDES / "faults.md").read_text()
    source = "".join(path.read_text() for path in (ROOT / "facade").rglob("*.py"))
    events = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text)) - {"last_error"}
    assert "caching_stopped" in events
    written = {event: event.removeprefix("facade_").removesuffix("_total") for event in events}
    assert {event for event, name in written.items() if f'{name}"' not in source} == set()


def test_the_alerts_that_the_faults_name_are_rules() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "facade.rules.yml").read_text()
    named = set(re.findall(r"\bFacade[A-Z]\w+", (GUIDES / "faults.md").read_text()))
    assert len(named) > 8
    assert {name for name in named if f"alert: {name}\n" not in rules} == set()


def test_the_search_finds_names() -> None:
    assert named_tests("x `unit/a/test_b.py::test_c`, `attacks/test_d.py`.") == [
        ("unit/a/test_b.py", "test_c"),
        ("attacks/test_d.py", ""),
    ]


def test_the_ceremony_guide_names_every_command_and_none_that_is_not() -> None:
    commands: Any = typer.main.get_command(build())
    known = set(commands.commands["trust"].commands)
    text = (GUIDES / "trust-ceremony.md").read_text()
    assert set(_COMMAND.findall(text)) == known


def test_options_of_the_ceremony_guide_exist() -> None:
    commands: Any = typer.main.get_command(build())
    options = {
        option
        for command in commands.commands["trust"].commands.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    text = (GUIDES / "trust-ceremony.md").read_text()
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    foreign = {"--read-object"}  # pkcs11-tool's
    assert used - foreign - options == set()


TOLD_IN_WORDS = {
    *("listing", "digest-invalid", "name-invalid", "range-invalid", "unsupported", "not-found"),
}
"""Of requests that no runtime makes for an image: their message says all there is."""


def test_the_readme_says_what_to_do_for_each_reason() -> None:
    text = (ROOT / "README.md").read_text()
    table = text.partition("## When a pull is refused")[2].partition("\n## ")[0]
    assert {reason.value for reason in Reason} - TOLD_IN_WORDS <= set(
        re.findall(r"`([\w-]+)`", table)
    )


def console_commands(text: str) -> list[list[str]]:
    """What follows `$ facade` in the console blocks, continued lines joined."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [
        shlex.split(line.removeprefix("$ facade ").partition(" < ")[0])
        for line in lines
        if line.startswith("$ facade ")
    ]


@pytest.mark.parametrize(
    "command", console_commands((ROOT / "README.md").read_text()), ids=" ".join
)
def test_the_readmes_commands_are_ones(command: list[str]) -> None:
    """Every option is there, and none that is needed is missing; nothing is run."""
    found: Any = typer.main.get_command(build())
    root = found.make_context("facade", ["doctor"], obj=Session({}))
    words = list(command)
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    found.make_context(command[0], words, parent=root)
