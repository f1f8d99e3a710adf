"""The guides say nothing that is not there: named tests exist, and so do the commands of a ceremony."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from facade.cli.main import build

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
