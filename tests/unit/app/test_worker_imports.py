"""What a serving process loads, and what it must not: memory, start time, and reach."""

import json
import subprocess
import sys

SHOW = """
import json, sys
from facade.app.worker import UNWANTED
sys.modules.update(dict.fromkeys(UNWANTED))
import facade.app.serving_process
print(json.dumps([name for name, module in sys.modules.items() if module is not None]))
"""

HEAVY = (
    *("aiobotocore", "alembic", "boto3", "botocore", "google.auth", "greenlet", "redis", "rich"),
    *("sqlalchemy", "typer", "aiosqlite", "pygments", "ctypes"),
)


def test_nothing_heavy_and_nothing_of_the_control_side() -> None:
    shown = subprocess.run([sys.executable, "-c", SHOW], check=True, capture_output=True, text=True)
    modules = set(json.loads(shown.stdout))
    assert "facade.serving.pulls.service" in modules
    assert not modules & set(HEAVY)
    assert not [name for name in modules if name.startswith(("facade.control", "facade.cli"))]
