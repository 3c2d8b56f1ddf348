"""What may be used where, as far as the import contracts in pyproject.toml cannot say it."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]

MAY_READ_THE_CLOCK = ("enroll/clock.py",)  # others are given one, or what `enroll.clock_sense` makes of it
MAY_CATCH_EVERYTHING = {  # file: why no error may end this loop
    "agent/cli/main.py": "a defect must not look like the verdict of a verification",
    "agent/daemon/channels.py": "a defect closes one signing channel and no other",
    "agent/daemon/lone_thread.py": "a defect goes to whoever asks for the result",
    "agent/daemon/worker.py": "a defect closes one connection and no other",
}
MAY_READ_THE_ENVIRONMENT = {  # file: what for
    "enroll/clock.py": "which start of the machine it is, from the unit that hides where the kernel says so",
    "agent/daemon/notify.py": "NOTIFY_SOCKET, LISTEN_FDS and their like are how systemd speaks to a service",
}

WALL_CLOCK = {
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.strftime"),
    "time.CLOCK_REALTIME",
}


@cache
def product_files() -> tuple[tuple[str, ast.Module], ...]:
    paths = sorted(path for package in ("agent", "enroll") for path in (ROOT / package).rglob("*.py"))
    return tuple((path.relative_to(ROOT).as_posix(), ast.parse(path.read_bytes())) for path in paths)


def places(found: Callable[[ast.AST], bool]) -> Iterator[str]:
    for name, tree in product_files():
        for node in ast.walk(tree):
            if found(node):
                yield f"{name}:{getattr(node, 'lineno', 0)}"


def dotted(node: ast.AST) -> str:
    """The last two names of an attribute: `datetime.now` for `datetime.datetime.now`."""
    if not isinstance(node, ast.Attribute):
        return ""
    owner = node.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return f"{name}.{node.attr}"


def catches_everything(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id.endswith("Exception")) for kind in caught)


def test_only_the_clock_reads_the_wall_clock() -> None:
    reads = places(lambda node: dotted(node) in WALL_CLOCK)

    assert [place for place in reads if not place.startswith(MAY_READ_THE_CLOCK)] == []


def test_only_the_top_loops_catch_everything() -> None:
    handlers = places(catches_everything)

    assert [place for place in handlers if not place.startswith(tuple(MAY_CATCH_EVERYTHING))] == []


def test_secrets_never_come_from_the_environment() -> None:
    reads = places(lambda node: dotted(node) in {"os.environ", "os.getenv"})

    assert [place for place in reads if not place.startswith(tuple(MAY_READ_THE_ENVIRONMENT))] == []


@pytest.mark.parametrize("package", ["agent", "enroll"])
def test_modules_do_not_import_each_other_in_circles(package: str) -> None:
    graph = grimp.build_graph(package, cache_dir=None)
    order = graphlib.TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules},
    )

    order.prepare()  # raises CycleError, which names the circle


def test_a_worker_loads_nothing_that_handles_keys_or_the_network() -> None:
    program = "import sys, agent.daemon.worker; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    packages = {name.partition(".")[0] for name in loaded.stdout.split()}

    assert packages & {"OpenSSL", "cryptography", "pkcs11", "pydicom", "requests", "ssl", "urllib3"} == set()


def test_the_keyholder_does_not_load_pydicom() -> None:
    program = "import sys, agent.daemon; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)

    assert "pydicom" not in loaded.stdout.split()
