"""Half an hour of signing at the highest rate: digests on several connections, and CT slices on one.

    scripts/soak --minutes 30

Every signature of a digest is checked with the public key. In the end, descriptors must be as many as after the
warm-up, memory within 2 %, and the audit trail must be whole and have one line for each signature that was given out.
Run it as root: nobody else may look at the processes of the agent.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.audit import AuditSummary, verify
from agent.client import SigningClient
from agent.errors import AgentError
from scripts.benchmark import PROFILE, ROLE, Scanner, agent_of, children, enrolled
from tests.support.reliability.load import Report, running_load
from tests.support.reliability.measured import measured
from tests.support.reliability.processes import Held

CONNECTIONS = 8
WARM_UP = 0.1  # of the time, a minute at most: until every thread has had its work
ROOM = 0.02  # of the memory after the warm-up


@dataclass
class Images:
    """What came of the slices."""

    signed: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """What came of the run.

    Args:
        report: Of the digests.
        images: Of the slices.
        begin: What each process held after the warm-up, keyholder first.
        end: What each held in the end.
        lines: Signatures in the audit trail.
        audit: The whole of it.
        before: Signatures that were made before it began.
    """

    report: Report
    images: Images
    begin: Sequence[Held]
    end: Sequence[Held]
    lines: int
    audit: AuditSummary
    before: int

    @property
    def given_out(self) -> int:
        """Signatures that callers have got."""
        return self.before + self.report.signed + self.images.signed

    def faults(self) -> list[str]:
        """What is not as it should be."""
        found = [*self.report.failures, *self.images.failures]
        for number, (begin, end) in enumerate(zip(self.begin, self.end, strict=True)):
            name = f"worker {number}" if number else "keyholder"
            if end.descriptors > begin.descriptors:
                found.append(f"{name}: {begin.descriptors} descriptors have become {end.descriptors}")
            if end.resident - begin.resident > ROOM * begin.resident:
                found.append(f"{name}: {_mib(begin)} MiB have become {_mib(end)} MiB")
        if self.lines != self.given_out:
            found.append(f"{self.given_out} signatures were given out, and {self.lines} recorded")
        if self.audit.torn:
            found.append(f"torn lines: {self.audit.torn}")
        return found

    def rows(self) -> Iterator[tuple[str, str]]:
        """What a person reads."""
        report = self.report
        yield "signatures of digests, all right", f"{report.signed:,} ({report.rate:.0f} a second)"
        yield "CT slices meanwhile", f"{self.images.signed:,} ({self.images.signed / report.seconds:.0f} a second)"
        yield "a request, p99 and longest", f"{report.p99 * 1e3:.1f} ms, {report.longest * 1e3:.0f} ms"
        yield "longest time without any signature", f"{report.pause * 1e3:.0f} ms"
        for number, (begin, end) in enumerate(zip(self.begin, self.end, strict=True)):
            name = f"worker {number}" if number else "keyholder"
            yield f"{name}: memory", f"{_mib(begin)} MiB, in the end {_mib(end)} MiB"
            yield f"{name}: descriptors", f"{begin.descriptors}, in the end {end.descriptors}"
        yield "audit: signatures, all lines", f"{self.lines:,}, {self.audit.records:,}"


def _mib(held: Held) -> str:
    return f"{held.resident / 2**20:.1f}"


@contextmanager
def images_being_signed(scanner: Scanner) -> Iterator[Images]:
    """Slices are signed on a connection of their own."""
    images, over = Images(), threading.Event()

    def sign_on() -> None:
        with SigningClient(scanner.socket) as client:
            while not over.is_set() and not images.failures:
                try:
                    client.splice_instance(scanner.image, role=ROLE, profile=PROFILE)
                    images.signed += 1
                except AgentError as error:
                    images.failures.append(f"{error.code}: {error.what}")

    thread = threading.Thread(target=sign_on)
    thread.start()
    try:
        yield images
    finally:
        over.set()
        thread.join()


def soak(scanner: Scanner, seconds: float) -> Figures:
    """Sign for so long."""
    trail = scanner.root / "scanner" / "audit" / "audit.jsonl"
    with agent_of(scanner) as (agent, _):
        processes = [agent.pid, *children(agent.pid)]
        before = signatures(trail)
        with images_being_signed(scanner) as images, running_load(scanner.socket, agent.pid, CONNECTIONS) as report:
            warm_up = min(WARM_UP * seconds, 60.0)
            time.sleep(warm_up)
            begin = [Held.by(pid) for pid in processes]
            time.sleep(seconds - warm_up)
            end = [Held.by(pid) for pid in processes]
    return Figures(report, images, begin, end, signatures(trail), verify(trail), before)


def signatures(trail: Path) -> int:
    """How many there are in an audit trail."""
    with trail.open("rb") as lines:
        return sum(json.loads(line)["event"] == "signature" for line in lines)


def keep(figures: Figures, minutes: float) -> None:
    """For docs/reliability.md."""
    report, begin, end = figures.report, figures.begin, figures.end
    measured(
        "R1",
        f"signing for {minutes:g} minutes on {CONNECTIONS + 1} connections",
        signatures=figures.given_out,
        signatures_per_second=round((report.signed + figures.images.signed) / report.seconds),
        failed=len(report.failures) + len(figures.images.failures),
        p99_ms=round(report.p99 * 1e3, 1),
        longest_ms=round(report.longest * 1e3),
    )
    measured(
        "R18",
        f"signing for {minutes:g} minutes",
        minutes=minutes,
        signatures=figures.given_out,
        keyholder_mib=f"{_mib(begin[0])} to {_mib(end[0])}",
        workers_mib=f"{', '.join(map(_mib, begin[1:]))} to {', '.join(map(_mib, end[1:]))}",
        descriptors=f"{sum(one.descriptors for one in begin)} to {sum(one.descriptors for one in end)}",
        audit_lines_without_signature=figures.lines - figures.given_out,
        signatures_without_audit_line=max(0, figures.given_out - figures.lines),
    )


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long; 30 by default")
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="scanseal-soak-") as directory:
        figures = soak(enrolled(Path(directory)), minutes * 60)
    keep(figures, minutes)
    print(f"{minutes:g} minutes, {os.cpu_count()} CPUs, {CONNECTIONS} connections for digests and one for slices.\n")
    print("| what | result |\n|---|---|")
    for what, result in figures.rows():
        print(f"| {what} | {result} |")
    for fault in figures.faults():
        print(f"\nNOT AS IT SHOULD BE: {fault}")
    sys.exit(bool(figures.faults()))


if __name__ == "__main__":
    main()
