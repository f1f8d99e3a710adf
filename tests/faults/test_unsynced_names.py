"""The disk does not say that a published name would survive a power loss: nothing is in the store unbeknown
to the index, where eviction would not find it."""

import os
import subprocess
import sys
from pathlib import Path

from facade.oci.digest import Digest
from tests.support.blobs import make_content

ROOT = Path(__file__).parents[2]
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Even root is held to a folder's mode then."""


def test_what_is_published_without_a_synced_name_is_counted_and_served(tmp_path: Path) -> None:
    content = make_content(100_000)
    folder = tmp_path / "blobs" / "sha256" / Digest.of(content).hex[:2]
    folder.mkdir(parents=True)
    folder.chmod(0o300)  # names come and go in it, but it cannot be opened, nor synced
    try:
        done = subprocess.run(
            [
                *(UNPRIVILEGED if os.geteuid() == 0 else ()),
                sys.executable,
                str(ROOT / "tests/faults/unsynced_process.py"),
                str(tmp_path),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        folder.chmod(0o700)
    assert "published_name_not_synced" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == f"1 {len(content)} hit 0"
