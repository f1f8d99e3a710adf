"""The rules of the house, checked from the imports and the syntax of every module.

Each rule is a function from a module to the complaints about it, so that each is itself tried
on a snippet that breaks it and on one that does not.
"""

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 300
MAX_PORT_METHODS = 5

GROUND_FLOOR = (
    *("facade.errors", "facade.reasons", "facade.clock", "facade.device", "facade.target"),
    *("facade.secret", "facade.wings", "facade.config", "facade.oci", "facade.upstream"),
    "facade.link",
)
COMPOSERS = (
    *("facade.app", "facade.server", "facade.listening", "facade.up", "facade.workers"),
    *("facade.cli", "facade.demo"),
)
"""What stands above both wings."""
CRYPTOGRAPHY_ROOMS = (
    *("facade.control.connections.sealing", "facade.control.devices"),
    *("facade.control.signing.keys", "facade.control.signing.ceremony"),
    *("facade.serving.blobs.tags", "facade.serving.identity"),
)
CRYPTOGRAPHY_CLIENTS = ("facade.cli", "facade.demo")
"""`device issue` makes the device's key, and `device inspect` explains a certificate, locally."""
TUF_ROOMS = ("facade.serving.trust", "facade.control.signing", "facade.device_client")
NO_AIOHTTP = ("facade.serving.pulls", "facade.control.catalog")
UPSTREAM_CLIENT_USERS = (*COMPOSERS, "facade.upstream")
ADAPTERS = ("facade.upstream.client", "facade.upstream.transport")
USE_CASES = ("facade.serving.pulls", "facade.control.catalog")
CATALOG_STORES = ("facade.control.catalog.manifests", "facade.control.catalog.records")
"""The catalog's own SQL stores: adapters that lie beside the ports they implement."""
ADAPTERS_BELOW_USE_CASES = (
    *CATALOG_STORES,
    *("sqlalchemy", "sqlite3", "redis", "facade.control.database"),
    *("facade.serving.blobs.local", "facade.serving.trust.verifier"),
    *("facade.control.connections.sealing", "facade.control.signing.publisher"),
)
REAL_TIME = {
    *("time.time", "time.monotonic", "time.sleep", "asyncio.sleep"),
    *("datetime.now", "datetime.utcnow", "datetime.datetime.now"),
}
PATCHING = {"patch", "setattr", "setenv", "delattr", "delenv", "setitem", "delitem"}


@dataclass(frozen=True)
class Module:
    """A module's dotted name, its text, and its syntax tree."""

    name: str
    text: str
    tree: ast.Module
    is_package: bool = False

    @classmethod
    def read(cls, path: Path) -> "Module":
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        return cls.parse(name, path.read_text(), is_package=is_package)

    @classmethod
    def parse(cls, name: str, text: str, *, is_package: bool = False) -> "Module":
        return cls(name, text, ast.parse(text), is_package)

    def imports(self) -> Iterator[str]:
        """Every module imported, at the top or lazily; `from a import b` gives a and a.b."""
        package = self.name if self.is_package else self.name.rpartition(".")[0]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*above, base]).rstrip(".")
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)

    def within(self, *rooms: str) -> bool:
        return is_within(self.name, rooms)


def is_within(name: str, rooms: Iterable[str]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


Rule = Callable[[Module], Iterator[str]]


def wings_meet_in_wings_only(module: Module) -> Iterator[str]:
    for own, other in (
        ("facade.serving", "facade.control"),
        ("facade.control", "facade.serving"),
    ):
        if module.within(own):
            yield from (name for name in module.imports() if is_within(name, [other]))


def the_ground_floor_looks_down_only(module: Module) -> Iterator[str]:
    if module.within(*GROUND_FLOOR):
        for name in module.imports():
            if is_within(name, ["facade"]) and name != "facade":
                symbol_of = name.rpartition(".")[0]
                if not is_within(name, GROUND_FLOOR) and symbol_of != "facade":
                    yield name


def oci_is_pure(module: Module) -> Iterator[str]:
    if module.within("facade.oci"):
        foreign = ("asyncio", "aiohttp", "socket", "pathlib", "facade.upstream", "structlog")
        yield from (name for name in module.imports() if is_within(name, foreign))


def nobody_imports_the_composers(module: Module) -> Iterator[str]:
    if module.within("facade") and not module.within(*COMPOSERS):
        yield from (name for name in module.imports() if is_within(name, COMPOSERS))


def use_cases_know_no_aiohttp(module: Module) -> Iterator[str]:
    if module.within(*NO_AIOHTTP):
        yield from (name for name in module.imports() if is_within(name, ["aiohttp"]))


def use_cases_name_no_adapter(module: Module) -> Iterator[str]:
    if module.within("facade") and not module.within(*UPSTREAM_CLIENT_USERS):
        yield from (name for name in module.imports() if is_within(name, ADAPTERS))


def use_cases_name_no_store(module: Module) -> Iterator[str]:
    if module.within(*USE_CASES) and not module.within(*CATALOG_STORES):
        yield from (name for name in module.imports() if is_within(name, ADAPTERS_BELOW_USE_CASES))


def use_cases_are_above_the_domain(module: Module) -> Iterator[str]:
    """The rooms that use cases are built on do not know them."""
    for use_case in USE_CASES:
        wing = use_case.rpartition(".")[0]
        if module.within(wing) and not module.within(use_case, f"{wing}.api"):
            yield from (name for name in module.imports() if is_within(name, [use_case]))


def api_is_the_top_of_its_wing(module: Module) -> Iterator[str]:
    for wing in ("facade.serving", "facade.control"):
        api = f"{wing}.api"
        if module.within(wing) and not module.within(api):
            yield from (name for name in module.imports() if is_within(name, [api]))


def only_some_rooms_do_cryptography(module: Module) -> Iterator[str]:
    if module.within("facade") and not module.within(*CRYPTOGRAPHY_ROOMS, *CRYPTOGRAPHY_CLIENTS):
        yield from (
            name for name in module.imports() if is_within(name, ["cryptography", "OpenSSL"])
        )


def only_some_rooms_know_tuf(module: Module) -> Iterator[str]:
    if module.within("facade") and not module.within(*TUF_ROOMS):
        yield from (
            name for name in module.imports() if is_within(name, ["tuf", "securesystemslib"])
        )


def only_the_composition_root_knows_the_link(module: Module) -> Iterator[str]:
    """How the wings' ports are carried is nobody's business but the root's."""
    if module.within("facade") and not module.within("facade.app", "facade.link"):
        yield from (name for name in module.imports() if is_within(name, ["facade.link"]))


def modules_are_short(module: Module) -> Iterator[str]:
    """Suites of tests may be long tables of cases; their support may not."""
    if module.within("tests") and not module.within("tests.support"):
        return
    lines = len(module.text.splitlines())
    if lines >= MAX_LINES:
        yield f"{lines} lines"


def modules_say_what_they_guarantee(module: Module) -> Iterator[str]:
    if not ast.get_docstring(module.tree):
        yield "no docstring"


def time_is_injected(module: Module) -> Iterator[str]:
    """A decision that reads the machine's clock cannot be tested. `asyncio.sleep(0)` decides nothing."""
    if not module.within("facade") or module.within("facade.clock", *COMPOSERS):
        return
    for node in ast.walk(module.tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        called = ast.unparse(node.func)
        is_yield = called == "asyncio.sleep" and ast.unparse(node.args[0]) == "0"
        if called in REAL_TIME and not is_yield:
            yield f"line {node.lineno}: {called}"


def ports_are_small(module: Module) -> Iterator[str]:
    """Observers may be told more; properties describe a record, and are not counted."""
    if not module.within("facade"):
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ClassDef) or node.name.endswith("Observer"):
            continue
        bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
        if bases & {"Protocol", "typing.Protocol"}:
            methods = [
                item
                for item in node.body
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
                and not item.decorator_list
            ]
            if len(methods) > MAX_PORT_METHODS:
                yield f"{node.name}: {len(methods)} methods"


def nothing_is_patched_in_tests(module: Module) -> Iterator[str]:
    if not module.within("tests"):
        return
    for name in module.imports():
        if is_within(name, ["unittest.mock", "mock", "pytest_mock"]):
            yield name
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in PATCHING
            and isinstance(node.value, ast.Name)
            and node.value.id in ("monkeypatch", "mock", "mocker")
        ):
            yield f"line {node.lineno}: {node.value.id}.{node.attr}"


def no_state_lives_in_modules(module: Module) -> Iterator[str]:
    """Catches `global`, and module-level names bound to an empty or filled mutable container."""
    if not module.within("facade"):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global {', '.join(node.names)}"
    for statement in module.tree.body:
        if isinstance(statement, ast.Assign):
            targets: list[ast.expr] = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        if names - {"__all__"} and _is_state(statement.value, names):
            yield f"line {statement.lineno}: {', '.join(sorted(names))}"


MUTABLE_CALLS = {"dict", "list", "set", "defaultdict", "OrderedDict", "deque", "Counter"}
MUTABLE_CALLS |= {"WeakValueDictionary", "WeakKeyDictionary", "ContextVar", "Lock", "Event"}


def _is_state(value: ast.expr | None, names: set[str]) -> bool:
    """A constant table (CAPITALS, filled, never written to below) is not state."""
    if isinstance(value, ast.Call):
        function = value.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        return name in MUTABLE_CALLS and not (name == "ContextVar" and _are_constants(names))
    if isinstance(value, ast.List | ast.Set | ast.Dict):
        empty = not (value.keys if isinstance(value, ast.Dict) else value.elts)
        return empty or not _are_constants(names)
    return isinstance(value, ast.ListComp | ast.SetComp | ast.DictComp) and not _are_constants(
        names
    )


def _are_constants(names: set[str]) -> bool:
    return all(name.isupper() for name in names)


def constant_tables_are_not_written_to(module: Module) -> Iterator[str]:
    if not module.within("facade"):
        return
    for node in ast.walk(module.tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign):
            targets = [node.target]
        for target in targets:
            if (
                isinstance(target, ast.Subscript)
                and isinstance(target.value, ast.Name)
                and target.value.id.isupper()
                and len(target.value.id) > 1
            ):
                yield f"line {target.lineno}: {target.value.id}"


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        wings_meet_in_wings_only,
        the_ground_floor_looks_down_only,
        oci_is_pure,
        nobody_imports_the_composers,
        use_cases_know_no_aiohttp,
        use_cases_name_no_adapter,
        use_cases_name_no_store,
        use_cases_are_above_the_domain,
        api_is_the_top_of_its_wing,
        only_some_rooms_do_cryptography,
        only_some_rooms_know_tuf,
        only_the_composition_root_knows_the_link,
        modules_are_short,
        modules_say_what_they_guarantee,
        time_is_injected,
        ports_are_small,
        nothing_is_patched_in_tests,
        no_state_lives_in_modules,
        constant_tables_are_not_written_to,
    )
}


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return read_modules()


def read_modules() -> list[Module]:
    paths = [
        path
        for folder in ("facade", "tests", "certs-dev")
        for path in (ROOT / folder).rglob("*.py")
    ]
    return [Module.read(path) for path in sorted(paths)]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_house_keeps(rule: Rule, modules: list[Module]) -> None:
    complaints = [f"{module.name}: {words}" for module in modules for words in rule(module)]
    assert complaints == []


FIVE_METHODS = "".join(f"    def m{number}(self): ...\n" for number in range(5))
SIX_METHODS = FIVE_METHODS + "    async def m5(self): ...\n"

BREAKING = [
    (wings_meet_in_wings_only, "facade.serving.pulls.x", "from facade.control import signing"),
    (wings_meet_in_wings_only, "facade.control.api.x", "import facade.serving.blobs.port"),
    (wings_meet_in_wings_only, "facade.serving.x", "from ..control import signing"),
    (wings_meet_in_wings_only, "facade.serving.x", "def f():\n    from facade import control"),
    (the_ground_floor_looks_down_only, "facade.oci.x", "from facade.serving.trust import view"),
    (the_ground_floor_looks_down_only, "facade.clock", "import facade.observability.logs"),
    (oci_is_pure, "facade.oci.x", "import asyncio"),
    (oci_is_pure, "facade.oci.x", "from facade.upstream.challenge import Challenge"),
    (nobody_imports_the_composers, "facade.control.x", "from facade.app import build"),
    (nobody_imports_the_composers, "facade.serving.x", "from facade import app"),
    (use_cases_know_no_aiohttp, "facade.serving.pulls.x", "from aiohttp import web"),
    (use_cases_know_no_aiohttp, "facade.control.catalog.x", "import aiohttp.web"),
    (use_cases_name_no_adapter, "facade.serving.pulls.x", "from facade.upstream.client import C"),
    (use_cases_name_no_adapter, "facade.control.catalog.x", "from facade.upstream import client"),
    (use_cases_name_no_store, "facade.control.catalog.x", "from sqlalchemy import select"),
    (use_cases_name_no_store, "facade.serving.pulls.x", "import facade.serving.blobs.local"),
    (use_cases_name_no_store, "facade.control.catalog.x", "from .records import Records"),
    (use_cases_are_above_the_domain, "facade.serving.blobs.x", "import facade.serving.pulls.x"),
    (use_cases_are_above_the_domain, "facade.control.signing.x", "from ..catalog import fleets"),
    (api_is_the_top_of_its_wing, "facade.serving.pulls.x", "from facade.serving.api import app"),
    (only_some_rooms_do_cryptography, "facade.serving.pulls.x", "import cryptography.x509"),
    (only_some_rooms_do_cryptography, "facade.serving.blobs.local", "from OpenSSL import crypto"),
    (only_some_rooms_do_cryptography, "facade.control.signing.publisher", "import cryptography"),
    (only_some_rooms_know_tuf, "facade.serving.api.x", "from tuf.api.metadata import Root"),
    (only_some_rooms_know_tuf, "facade.control.catalog.x", "import securesystemslib.signer"),
    (
        only_the_composition_root_knows_the_link,
        "facade.serving.x",
        "from facade.link.calls import Away",
    ),
    (only_the_composition_root_knows_the_link, "facade.control.x", "from facade import link"),
    (the_ground_floor_looks_down_only, "facade.link.x", "import facade.observability.health"),
    (modules_are_short, "facade.x", '"""Doc."""\n' * MAX_LINES),
    (modules_say_what_they_guarantee, "facade.x", "x = 1"),
    (
        nothing_is_patched_in_tests,
        "tests.unit.x",
        "def test(monkeypatch):\n    monkeypatch.setattr(a, b)",
    ),
    (nothing_is_patched_in_tests, "tests.unit.x", "from unittest import mock"),
    (nothing_is_patched_in_tests, "tests.unit.x", "from unittest.mock import patch"),
    (nothing_is_patched_in_tests, "tests.unit.x", "def test(mocker):\n    mocker.patch('a.b')"),
    (time_is_injected, "facade.x", "def f():\n    return time.time()"),
    (time_is_injected, "facade.x", "async def f():\n    await asyncio.sleep(1)"),
    (time_is_injected, "facade.x", "now = datetime.now(UTC)"),
    (ports_are_small, "facade.x", "class P(Protocol):\n" + SIX_METHODS),
    (ports_are_small, "facade.x", "class P(typing.Protocol[T]):\n" + SIX_METHODS),
    (no_state_lives_in_modules, "facade.x", "_cache = {}"),
    (no_state_lives_in_modules, "facade.x", "_CACHE: dict[str, int] = {}"),
    (no_state_lives_in_modules, "facade.x", "IN_FLIGHT = set()"),
    (no_state_lives_in_modules, "facade.x", "_seen = [1, 2]"),
    (no_state_lives_in_modules, "facade.x", "LOCK = asyncio.Lock()"),
    (no_state_lives_in_modules, "facade.x", "def f():\n    global x\n    x = 1"),
    (constant_tables_are_not_written_to, "facade.x", "def f():\n    TABLE['a'] = 1"),
    (constant_tables_are_not_written_to, "facade.x", "def f():\n    del TABLE['a']"),
]

KEEPING = [
    (wings_meet_in_wings_only, "facade.app", "from facade.control import signing"),
    (wings_meet_in_wings_only, "facade.serving.x", "from facade.wings import ControlPort"),
    (wings_meet_in_wings_only, "facade.serving.x", "import facade.controller"),
    (the_ground_floor_looks_down_only, "facade.oci.x", "from facade.errors import Invalid"),
    (the_ground_floor_looks_down_only, "facade.config", "from facade import __version__"),
    (nobody_imports_the_composers, "facade.cli.main", "from facade.app import build"),
    (use_cases_know_no_aiohttp, "facade.serving.api.x", "from aiohttp import web"),
    (use_cases_name_no_adapter, "facade.app", "from facade.upstream.client import C"),
    (use_cases_name_no_store, "facade.serving.pulls.x", "import facade.serving.blobs.port"),
    (use_cases_name_no_store, "facade.control.catalog.records", "import sqlalchemy"),
    (use_cases_are_above_the_domain, "facade.serving.api.x", "import facade.serving.pulls.x"),
    (only_some_rooms_do_cryptography, "facade.control.devices.ca", "import cryptography.x509"),
    (only_some_rooms_know_tuf, "facade.control.signing.draft", "import tuf.api.metadata"),
    (
        only_the_composition_root_knows_the_link,
        "facade.app.x",
        "from facade.link.unix import served",
    ),
    (only_the_composition_root_knows_the_link, "facade.link.x", "import facade.link.strict"),
    (modules_are_short, "facade.x", "x = 1\n" * (MAX_LINES - 1)),
    (modules_are_short, "tests.unit.test_x", "x = 1\n" * MAX_LINES),
    (time_is_injected, "facade.x", "async def f():\n    await asyncio.sleep(0)"),
    (time_is_injected, "facade.clock", "def f():\n    return time.time()"),
    (ports_are_small, "facade.x", "class P(Protocol):\n" + FIVE_METHODS),
    (ports_are_small, "facade.x", "class P(asyncio.Protocol):\n" + SIX_METHODS),
    (ports_are_small, "facade.x", "class NotAPort:\n" + SIX_METHODS),
    (nothing_is_patched_in_tests, "tests.x", "def test(monkeypatch):\n    monkeypatch.chdir('/')"),
    (no_state_lives_in_modules, "facade.x", "TABLE = {'a': 1}\n__all__ = ['x']\nLIMIT = 5"),
    (no_state_lives_in_modules, "facade.x", "def f():\n    cache = {}"),
    (constant_tables_are_not_written_to, "facade.x", "def f():\n    table['a'] = 1"),
]


def _example(part: Rule | str) -> str:
    """A part of an example's name: the same in every process."""
    return part if isinstance(part, str) else part.__name__


@pytest.mark.parametrize(("rule", "name", "text"), BREAKING, ids=_example)
def test_a_rule_notices_what_breaks_it(rule: Rule, name: str, text: str) -> None:
    assert list(rule(Module.parse(name, text)))


@pytest.mark.parametrize(("rule", "name", "text"), KEEPING, ids=_example)
def test_a_rule_lets_pass_what_keeps_it(rule: Rule, name: str, text: str) -> None:
    assert not list(rule(Module.parse(name, text)))


def test_every_rule_is_tried_and_there_is_something_to_check(modules: list[Module]) -> None:
    assert {rule for rule, _, _ in BREAKING} == set(RULES.values())
    assert {"facade.wings", "facade.oci.digest", "tests.test_architecture"} <= {
        module.name for module in modules
    }
