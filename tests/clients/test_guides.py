"""The guides: each command in them runs as it stands, and what they say exists.

Only guides that need nothing but a registry are run here; device commands are those of the client tests.
"""

import re
import sys
from pathlib import Path

import pytest

from tests.support.facade_process import run
from tests.support.guide_runner import commands

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "deploy" / "guides"
RUN = (
    *("ship-an-image", "withdraw-an-image", "read-the-audit", "configure-podman"),
    *("configure-containerd", "configure-docker", "configure-crio"),
)


@pytest.mark.clients
@pytest.mark.slow
async def test_every_command_of_the_guides_works_as_it_stands(tmp_path: Path) -> None:
    guides = [GUIDES / f"{name}.md" for name in RUN]
    assert all(commands(guide.read_text()) for guide in guides)
    done = await run(
        *("unshare", "--mount", sys.executable, "-m", "tests.support.guide_runner"),
        *(tmp_path, *guides),
        env={"PYTHONPATH": str(ROOT)},
        timeout=240,  # some forty commands, each a process of its own
    )
    assert done.code == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    ran = re.findall(r"^([a-z-]+)\$ ", done.stdout, re.MULTILINE)
    assert set(ran) == set(RUN)


def test_links_between_the_guides_and_from_the_readme_lead_somewhere() -> None:
    for page in (*GUIDES.glob("*.md"), ROOT / "README.md"):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_readme_names_every_guide() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in GUIDES.glob("*.md"):
        assert f"deploy/guides/{page.name}" in readme, page.name
