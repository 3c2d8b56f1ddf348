"""`scanseal evaluation-fdo` beside an EST server of the hospital, in a network namespace where it has an address.

    unshare --user --map-root-user --net python -m tests.support.fdo.pilot_on_a_network FOLDER [OPTION...]

Ends when the command has said where everything is; that is on standard output.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from enroll.clock import SystemClock
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstServer

ADDRESS = "192.0.2.1"
ENTER = ("unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", __name__)
LAST_WORDS = ("Stop with", "{")
SECONDS = 60


def main() -> None:
    """Run it."""
    folder, *options = sys.argv[1:]
    for arguments in (["address", "add", f"{ADDRESS}/32", "dev", "lo"], ["link", "set", "lo", "up"]):
        subprocess.run(["ip", *arguments], check=True, timeout=SECONDS)
    ca = EvaluationCa.create_or_open(Path(folder) / "hospital-ca", SystemClock())
    with EstServer(ca) as est:
        bridge = ["--est-url", est.url, "--est-anchor", str(ca.anchor_file), "--est-username", USERNAME]
        command = ["evaluation-fdo", "--directory", f"{folder}/pilot", "--host", ADDRESS, "--port", "0", *bridge]
        command += ["--est-password-file", str(ca.password_file), *options]
        with subprocess.Popen([sys.executable, "-m", "agent.cli.main", *command], stdout=subprocess.PIPE) as process:
            assert process.stdout
            for line in process.stdout:
                sys.stdout.write(line.decode())
                if line.decode().startswith(LAST_WORDS):
                    break
            process.kill()


if __name__ == "__main__":
    main()
