"""What starting and serving processes load, and what they must not: memory, start time, and reach."""

import json
import subprocess
import sys

SHOW = """
import json, sys
from facade.app.unwanted import BY_A_WORKER, keep_out
keep_out(BY_A_WORKER)
import facade.app.serving_process
print(json.dumps([name for name, module in sys.modules.items() if module is not None]))
"""

HEAVY = (
    *("aiobotocore", "alembic", "boto3", "botocore", "google.auth", "greenlet", "redis", "rich"),
    *("sqlalchemy", "typer", "aiosqlite", "pygments", "ctypes", "pydantic_settings"),
)


BEFORE_THE_LAUNCH = """
import json, sys
from facade.app.unwanted import BY_ANY_SERVER, keep_out
keep_out(BY_ANY_SERVER)
import facade.cli.main, facade.up.run
print(json.dumps([name for name, module in sys.modules.items() if module is not None]))
"""


def test_nothing_heavy_comes_before_the_workers_are_launched() -> None:
    modules = set(_loaded(BEFORE_THE_LAUNCH))
    assert "facade.workers.supervisor" in modules
    heavy = {"aiohttp", "sqlalchemy", "tuf", "cryptography", "prometheus_client", *HEAVY}
    assert modules & heavy == {"typer", "greenlet", "pydantic_settings"}


def test_nothing_heavy_and_nothing_of_the_control_side() -> None:
    modules = set(_loaded(SHOW))
    assert "facade.serving.pulls.service" in modules
    assert not modules & set(HEAVY)
    assert not [name for name in modules if name.startswith(("facade.control", "facade.cli"))]


def _loaded(script: str) -> list[str]:
    command = [sys.executable, "-c", script]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    return list(json.loads(shown.stdout))
