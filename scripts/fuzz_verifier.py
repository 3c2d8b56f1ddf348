"""Gives damaged instances to the verifier: python -m scripts.fuzz_verifier COUNT SEED [--diagnose].

Prints what became of them as JSON. Whatever must not happen is there with the smallest mutant that shows it, in base64;
the exit code is 1 then. What is tried is in `tests/support/mutation.py`, what must hold in `verifier_fuzz.py`.
"""

from __future__ import annotations

import argparse
import base64
import json
import resource
import sys
import warnings
from pathlib import Path

from tests.support.mutation import Mutator
from tests.support.signed_seeds import seeds
from tests.support.verifier_fuzz import fuzz

MEMORY = 1 << 30  # bytes of address space


def main() -> int:
    """Try mutants, in a process that cannot take more memory than is allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="how many mutants")
    parser.add_argument("seed", type=int, help="of the random numbers: another one gives other mutants")
    parser.add_argument("--diagnose", action="store_true", help="look for reasons why signatures do not verify")
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    tally = fuzz(arguments.count, arguments.seed, diagnose=arguments.diagnose)
    mutator = Mutator(seeds(), arguments.seed)
    failures = [_shown(what, numbers, mutator) for what, numbers in tally.failures.items()]
    print(json.dumps(vars(tally) | {"peak_megabytes": _peak_megabytes(), "failures": failures}, indent=1))
    return bool(failures)


def _peak_megabytes() -> int:
    """What the process needed at most; not as getrusage counts, which begins with what the parent had."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) >> 10


def _shown(what: str, numbers: list[int], mutator: Mutator) -> dict[str, object]:
    smallest = min((mutator.mutant(number) for number in numbers), key=len)
    return {"what": what, "numbers": numbers, "mutant": base64.b64encode(smallest).decode("ascii")}


if __name__ == "__main__":
    sys.exit(main())
