"""Make a golden state directory: what this version writes, for all later ones to read (R16).

    python -m scripts.make_golden_state

It goes to tests/golden/state/<version>/, which is made once for each release and then never changed.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.support.pki import HospitalCa
from tests.support.whole_state import NOT_READ, Answers, answers_of, make_state

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "state"


def main() -> int:
    """Make that of this version.

    Returns:
        The exit code.
    """
    target = GOLDEN / version("scanseal")
    if target.exists():
        print(f"{target} is there already: what a release has written stays as it is.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        scanner = make_state(Path(folder) / "scanner", HospitalCa())
        root = scanner.identities.root
        said = answers_of(Answers(root, scanner.stores, scanner.files))
        shutil.copytree(root, target / "state", symlinks=True, ignore=shutil.ignore_patterns(*NOT_READ))
    (target / "answers.json").write_text(json.dumps(said, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
