"""What starting and serving processes load, and what they must not: memory, start time, and reach.

A start is imports for the most part: a library more is some hundredths of a second, and some MiB. Whoever adds a
name here has looked what it costs, and that the process cannot do without it until it serves.
"""

import json
import subprocess
import sys

_SHOW = """
import json, sys
print(json.dumps([name for name, module in sys.modules.items() if module is not None]))
"""

SERVING = f"""
from facade.app.worker import load
load()
{_SHOW}
"""

LAUNCHING = """
from facade.app.unwanted import BY_ANY_SERVER, keep_out
from facade.cli.main import main
main(["up", "--help"])
keep_out(BY_ANY_SERVER)
import facade.up.run
"""

LAUNCHED = f"""
{LAUNCHING}
from facade.app.unwanted import no_authorities
with no_authorities():
    import facade.up.running
"""

PYDANTIC = {
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_extensions",
    "typing_inspection",
}
AIOHTTP = {
    *("aiohttp", "aiohappyeyeballs", "aiosignal", "attr", "frozenlist", "idna", "multidict"),
    *("propcache", "yarl"),
}
SERVERS = {
    *("cryptography", "prometheus_client", "securesystemslib", "structlog", "tuf"),
    *AIOHTTP,
    *PYDANTIC,
}

BEFORE_THE_LAUNCH = {
    *("annotated_doc", "shellingham", "typer"),  # the command line
    *("dotenv", "greenlet", "pydantic_settings", "structlog"),
    *PYDANTIC,
}


def test_what_comes_before_the_workers_are_launched() -> None:
    modules = _loaded(LAUNCHING + _SHOW)
    assert "facade.workers.supervisor" in modules
    assert _libraries(modules) == BEFORE_THE_LAUNCH
    # Of the command line only what starts it.
    assert _below("facade.cli", modules) == {
        *("main", "run", "config", "output", "session", "usage"),
    }


def test_what_comes_while_they_load() -> None:
    modules = _loaded(LAUNCHED + _SHOW)
    assert "facade.control.api.app" in modules
    assert _libraries(modules) == BEFORE_THE_LAUNCH | SERVERS | {"publicsuffixlist", "sqlalchemy"}
    assert not [name for name in modules if name.startswith("facade.serving.api")]


def test_a_serving_process_loads_nothing_of_the_control_side() -> None:
    modules = _loaded(SERVING)
    assert "facade.serving.pulls.service" in modules
    assert _libraries(modules) == SERVERS | {"urllib3"}  # tuf has no updater without it
    assert "ctypes" not in modules
    wings = {name.split(".")[1] for name in modules if name.startswith("facade.")}
    assert not wings & {"control", "cli", "up", "demo", "device_client"}


def _libraries(modules: set[str]) -> set[str]:
    """What is neither Python's nor ours; without what packages are built or installed with."""
    tops = {name.split(".")[0] for name in modules}
    return {
        name
        for name in tops - sys.stdlib_module_names - {"facade", "cython_runtime", "google"}
        if not name.startswith("_")
    }


def _below(package: str, modules: set[str]) -> set[str]:
    return {name.split(".")[2] for name in modules if name.startswith(f"{package}.")}


def _loaded(script: str) -> set[str]:
    command = [sys.executable, "-c", script]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(json.loads(shown.stdout.splitlines()[-1]))
