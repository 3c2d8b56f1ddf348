"""The figures of a run: what a test has counted or measured, for docs/reliability.md and for the end of the run.

Each is one JSON line in the file that SCANSEAL_MEASURED names; `tests/conftest.py` names one where nobody else has.
A line also says on which machine, and how busy that was: no figure means anything without.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

VARIABLE = "SCANSEAL_MEASURED"


def measured(row: str, what: str, **figures: float | str) -> None:
    """Keep figures.

    Args:
        row: Of the table of docs/reliability.md: "R2".
        what: What was done, the same in every run: "kill sweep: renew by EST".
        figures: What came of it, by names that say the unit where there is one: `longest_gap_ms`.
    """
    path = os.environ.get(VARIABLE)
    if path:
        rounded = {
            name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in figures.items()
        }
        values = {"row": row, "what": what, "figures": rounded, "machine": machine(), "load": os.getloadavg()[0]}
        line = json.dumps(values) + "\n"
        with Path(path).open("ab", buffering=0) as file:  # one write each, because several processes measure
            file.write(line.encode())


def read_measured(path: Path) -> list[tuple[str, str, dict[str, float | str]]]:
    """Row, what was done, and its figures, in the order of rows; of what was done twice, the last."""
    found: dict[tuple[str, str], dict[str, float | str]] = {}
    for line in path.read_text("utf-8").splitlines():
        values = json.loads(line)
        found[values["row"], values["what"]] = values["figures"]
    return [
        (row, what, figures)
        for (row, what), figures in sorted(found.items(), key=lambda each: (int(each[0][0][1:]), each[0][1]))
    ]


def machine() -> str:
    """What figures depend on, without anything that names this one machine."""
    kernel = ".".join(platform.release().split(".")[:2])
    where = ", in CI" if os.environ.get("CI") else ""
    return f"{os.cpu_count()} CPUs, {platform.system()} {kernel}, Python {platform.python_version()}{where}"


def read_machine(path: Path) -> str:
    """The machine or machines of a run, and how busy they were."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    loads = [float(line["load"]) for line in lines]
    machines = sorted({str(line["machine"]) for line in lines})
    return f"{'; '.join(machines)}; load average {min(loads):.1f} to {max(loads):.1f}" if lines else "nothing measured"
