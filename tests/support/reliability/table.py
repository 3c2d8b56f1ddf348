"""Writes docs/reliability.md from the rows and from the figures of runs.

    SCANSEAL_MEASURED=figures.jsonl scripts/test
    python -m tests.support.reliability.table figures.jsonl [MORE.jsonl ...]

Of what several runs have measured, the last counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.reliability.measured import read_machine, read_measured
from tests.support.reliability.rows import ROWS, Result, Row

ROOT: Final = Path(__file__).parents[3]
DOCUMENT: Final = ROOT / "docs" / "reliability.md"
FIGURE: Final = "- *"  # how a line begins that differs from run to run; no other does
SUMMED: Final = frozenset(
    {"bad", "cases", "failures", "kill_points", "messages", "mutants", "points", "read", "trials"}
)

_INTRODUCTION: Final = """\
# Reliability

A scanner runs for fifteen years, loses power every week, has a clock that nobody sets, and a CA that somebody
switches off for a month. This page says what scanseal promises through all of that, which test shows it, and with
which figures.

## What is promised

**Nothing lost.** After whatever happens there is exactly one key with its certificate in use, and they belong
together; or the scanner is in a state that has a name, and `scanseal status` says what comes next and who must do it.
No key is destroyed that is still needed. What was acknowledged (a signature, a line of the audit trail, that the
scanner is disabled, that a certificate is revoked) stays so.

**No one in.** No signature is made for a caller who may not have it, or with a key whose certificate has expired, is
revoked, or whose scanner is disabled. No server installs a certificate for a key that this scanner does not hold.

**Images come first.** Where scanseal cannot sign, the caller hears so at once, the scan goes on, and what is not
signed is counted.

## How to read it

Each row is one kind of thing that happens. *Shown* means that tests do it and find what must come of it; *in part*
that something of it is missed, and *missing* that scanseal does not do it: the row says which. The figures are those
of a run of the tests, with the machine that they ran on. Counts (moments of a kill, cases, failures) mean the same
anywhere; times and rates belong to that machine, which also ran the callers, the servers and the tests beside each
other.

How to run all of it, or one row of it:

```sh
scripts/test
scripts/test tests/interop/test_kill_sweep.py
SCANSEAL_MEASURED=figures.jsonl scripts/test      # keeps the figures, for this page
```

The figures are printed at the end of every run. A test that cannot run here is skipped, and says what it needs: the
power cuts need root and loop devices.

**What was simulated.** Tokens are SoftHSM and TPMs are swtpm: no chip was tried. Power is cut by copying the image of
a mounted disk between two writes. Days and years pass on a scripted clock; whole processes see other dates through a
shifted wall clock. The CAs are test servers, and OpenSSL, step-ca and pebble where there are such. No real scanner was
tried.

"""

_CLOSING: Final = """
This page is written by `python -m tests.support.reliability.table FIGURES`; its text is in
`tests/support/reliability/rows.py`, and a test compares them.
"""


@dataclass(frozen=True)
class Figure:
    """What a test has measured.

    Args:
        what: What was done.
        values: What came of it.
        run: Number of the run, from 1.
    """

    what: str
    values: Mapping[str, float | str]
    run: int


def document(runs: Sequence[Path]) -> str:
    """The content of docs/reliability.md with the figures of these runs."""
    return "".join(_pieces([read_machine(run) for run in runs], _by_row(runs)))


def without_figures(text: str) -> list[str]:
    """The lines of the page that are the same after every run."""
    return [line for line in text.splitlines() if not line.startswith(FIGURE)]


def _by_row(runs: Sequence[Path]) -> dict[str, list[Figure]]:
    found: dict[tuple[str, str], Figure] = {}
    for number, run in enumerate(runs, start=1):
        for row, what, values in read_measured(run):
            found[row, what] = Figure(what, values, number)
    figures: dict[str, list[Figure]] = {row.name: [] for row in ROWS}
    for (row, _), figure in sorted(found.items()):
        figures[row].append(figure)
    return figures


def _pieces(machines: Sequence[str], figures: Mapping[str, Sequence[Figure]]) -> Iterator[str]:
    yield _INTRODUCTION
    yield "## The figures are from\n\n"
    for number, machine in enumerate(machines, start=1):
        yield f"{FIGURE}run {number}*: {machine}\n"
    yield "\n## At a glance\n\n| row | what happens | result |\n|---|---|---|\n"
    for row in ROWS:
        yield f"| [{row.name}](#{_anchor(row)}) | {row.title} | {row.result} |\n"
    counts = {result: sum(row.result is result for row in ROWS) for result in Result}
    yield f"\n{len(ROWS)} rows: {', '.join(f'{count} {result}' for result, count in counts.items())}.\n"
    for row in ROWS:
        yield from _section(row, figures[row.name], several=len(machines) > 1)
    yield _CLOSING


def _section(row: Row, figures: Sequence[Figure], *, several: bool) -> Iterator[str]:
    yield f"\n## {row.name}: {row.title}\n\n| | |\n|---|---|\n"
    yield f"| what happens | {row.happens} |\n"
    yield f"| what must come of it | {row.required} |\n"
    yield f"| result | **{row.result}** |\n"
    yield f"| shown by | {', '.join(f'[{Path(test).name}](../{test})' for test in row.tests)} |\n"
    yield f"| simulated | {row.simulated} |\n"
    if row.open:
        yield f"| open | {row.open} |\n"
    if row.measures:
        yield "\nMeasured:\n\n"
    for figure in figures:
        yield f"{FIGURE}{figure.what}*: {_values(figure.values)}{f' (run {figure.run})' if several else ''}\n"
    for kind, values in _sums(figures).items():
        yield f"{FIGURE}in all, {kind}*: {_values(values)}\n"


def _sums(figures: Sequence[Figure]) -> dict[str, dict[str, float | str]]:
    """What was counted by tests that do the same to many things, such as one kill sweep for each command."""
    kinds: dict[str, list[Figure]] = {}
    for figure in figures:
        kinds.setdefault(re.split("[:,]", figure.what)[0], []).append(figure)
    sums: dict[str, dict[str, float | str]] = {}
    for kind, same in kinds.items():
        counted = [name for name, value in same[0].values.items() if name in SUMMED and isinstance(value, int)]
        if len(same) > 1 and counted:
            sums[kind] = {name: sum(int(figure.values.get(name, 0)) for figure in same) for name in counted}
    return sums


def _values(values: Mapping[str, float | str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in values.items())


def _anchor(row: Row) -> str:
    """The anchor that GitHub makes of the heading of a row."""
    return f"{row.name}: {row.title}".lower().replace(" ", "-").translate({ord(mark): None for mark in ":,'"})


def _value(value: float | str) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 100 else str(value)


if __name__ == "__main__":
    DOCUMENT.write_text(document([Path(argument) for argument in sys.argv[1:]]), encoding="utf-8")
