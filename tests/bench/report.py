"""The results, for people and for programs: Markdown, JSON, and the machine they were had on."""

import json
import os
import platform
import re
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.plot import draw
from tests.bench.rounds import OURS, Series, missed

_VERSIONS = (("nginx", "-v"), ("docker-registry", "--version"), ("curl", "--version"))


def write(folder: Path, series: Sequence[Series], *, command: str) -> None:
    """Write `results.{md,json,svg}` into `folder`."""
    where = machine()
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    text = f"# Results\n\n`{command}`, {when}\n\n{table(series)}\n"
    text += "\n" + "\n".join(f"- {key}: {value}" for key, value in where.items()) + "\n"
    document = {
        "machine": where,
        "command": command,
        "loads": [
            {
                "name": each.name,
                "unit": each.unit,
                "figures": each.figures,
                "verdicts": [asdict(verdict) for verdict in each.verdicts()],
            }
            for each in series
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(text)
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "results.svg").write_text(draw(series))


def table(series: Sequence[Series]) -> str:
    """A Markdown table: our figure, each peer's, the ratio with its spread, and the target."""
    lines = [
        "| load | unit | facade | against | its figure | ratio (spread) | target | |",
        "|---|---|---:|---|---:|---:|---:|---|",
    ]
    for each in series:
        ours = _number(each.median(OURS))
        verdicts = each.verdicts()
        if not verdicts:
            lines.append(f"| {each.name} | {each.unit} | {ours} | | | | | |")
        for verdict in verdicts:
            theirs = (
                _number(each.median(verdict.against)) if verdict.against in each.figures else ""
            )
            ratio = f"{verdict.ratio:.2f} ({verdict.low:.2f} to {verdict.high:.2f})"
            target = "" if verdict.target is None else f"≤ {verdict.target:g}"
            word = "" if verdict.target is None else "**missed**" if verdict.missed else "met"
            lines.append(
                f"| {each.name} | {each.unit} | {ours} | {verdict.against} | {theirs} "
                f"| {ratio} | {target} | {word} |"
            )
    return "\n".join(lines)


def summary(series: Sequence[Series]) -> str:
    """The targets that were missed, in words."""
    misses = missed(series)
    if not misses:
        return "Every target was met."
    lines = [f"{len(misses)} targets were missed:"]
    lines += [
        f"  {miss.load}, against {miss.against}: {miss.ratio:.2f}, wanted {miss.target:g}"
        for miss in misses
    ]
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """What the figures were had on."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    peers = []
    for command in _VERSIONS:
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        peers.append((said.stdout or said.stderr).splitlines()[0])
    return {
        "processor": f"{model[1] if model else platform.machine()}, {os.cpu_count()} of them",
        "memory": f"{int(memory[1]) // 1024 if memory else 0} MiB",
        "kernel": platform.release(),
        "load average at the end": f"{os.getloadavg()[0]:.1f}",
        "python": f"{platform.python_version()}, {ssl.OPENSSL_VERSION}",
        "peers": "; ".join(peers),
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
