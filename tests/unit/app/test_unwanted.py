"""What is kept out of a serving process: authorities that nobody uses, plugins that happen to be there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pki import Authority

_LOAD = """
import os, ssl, sys
from facade.app.worker import load
load()
from aiohttp import connector
theirs = connector._SSL_CONTEXT_VERIFIED
print(theirs.verify_mode == ssl.CERT_REQUIRED, theirs.check_hostname, theirs.cert_store_stats()["x509"])
print(ssl.create_default_context().cert_store_stats()["x509"], os.environ.get("SSL_CERT_FILE"))
"""


def test_what_aiohttp_makes_of_its_own_trusts_nobody_and_what_we_make_trusts_the_system(
    tmp_path: Path,
) -> None:
    system = Authority.root().write(tmp_path)
    env = {**os.environ, "SSL_CERT_FILE": str(system)}
    command = [sys.executable, "-c", _LOAD]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    assert shown.stdout.splitlines() == ["True True 0", f"1 {system}"]


_AROUND = """
import os
from facade.app.unwanted import no_authorities
before = dict(os.environ)
with no_authorities():
    print(dict(os.environ) == before)
print(dict(os.environ) == before)
"""


@pytest.mark.parametrize("given", [{}, {"SSL_CERT_FILE": "/a"}, {"SSL_CERT_DIR": "/b"}])
def test_the_environment_is_as_it_was(given: dict[str, str]) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("SSL_CERT_")}
    command = [sys.executable, "-c", _AROUND]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env=env | given)
    assert shown.stdout.split() == ["False", "True"]


def test_a_plugin_that_is_installed_is_not_loaded(tmp_path: Path) -> None:
    info = tmp_path / "nosy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nosy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pydantic]\nnosy = nosy:plugin\n")
    (tmp_path / "nosy.py").write_text("plugin = None\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for script in (
        "from facade.app.worker import load; load()",
        "from facade.cli.main import main; main(['config', 'show'])",
    ):
        command = [sys.executable, "-c", f"{script}\nimport sys; print('nosy' in sys.modules)"]
        shown = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
        assert shown.stdout.splitlines()[-1] == "False"
