"""One run of the enroller in a process of its own, which a test may kill: python -m tests.support.enroll_process FILE.

The file is what `write_run` made. Exit code: 0 enrolled, 75 the CA has not decided yet, 1 otherwise.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from enroll.clock import SystemClock
from enroll.config import EnrollSettings
from enroll.enroller import Enroller
from enroll.errors import ScansealError
from enroll.flows.base import Pending
from enroll.flows.settings import FlowName
from enroll.identity import IdentityName
from enroll.statefile import StateFiles

ROOT = Path(__file__).parents[2]
TIMEOUT = 120  # seconds
TRY_LATER = 75


def write_run(path: Path, settings: EnrollSettings, identity: IdentityName, flow: FlowName) -> Path:
    path.write_bytes(pickle.dumps((settings, identity, flow)))
    return path


def run(file: Path, *tracer: str) -> subprocess.CompletedProcess[str]:
    """One run; `tracer` is what goes before it on the command line."""
    command = [*tracer, sys.executable, "-m", "tests.support.enroll_process", str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def main(file: Path) -> int:
    settings, identity, flow = pickle.loads(file.read_bytes())  # noqa: S301 - written by the test beside us
    try:
        with Enroller.configured(settings, SystemClock(), StateFiles()) as enroller:
            answer = enroller.enroll(identity, flow)
    except ScansealError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return TRY_LATER if isinstance(answer, Pending) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
