"""Every key that is logged anywhere was put on the allow-list on purpose."""

import ast
from collections.abc import Iterator
from pathlib import Path

import facade
from facade.observability.redaction import ALLOWED_KEYS

ROOT = Path(facade.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
STRUCTLOG_OWN = {"exc_info", "stack_info"}


def logged_keys(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in {"log", "logger"}
        ):
            for keyword in node.keywords:
                if keyword.arg is not None:
                    yield keyword.arg, node.lineno


def test_every_logged_key_is_allowed() -> None:
    unknown = [
        f"{path.relative_to(ROOT)}:{line}: {key}"
        for path in sorted(ROOT.rglob("*.py"))
        for key, line in logged_keys(ast.parse(path.read_text()))
        if key not in ALLOWED_KEYS | STRUCTLOG_OWN
    ]
    assert unknown == []


def test_the_search_finds_keys() -> None:
    tree = ast.parse('log.info("x", password=1)\nlog.bind(a=1)\nother.info(b=2)')
    assert list(logged_keys(tree)) == [("password", 1)]


def test_no_allowed_key_is_named_after_a_secret() -> None:
    suspicious = {"password", "secret", "token", "authorization", "key", "cookie", "credentials"}
    assert suspicious.isdisjoint(ALLOWED_KEYS)
