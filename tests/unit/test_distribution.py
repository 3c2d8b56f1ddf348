"""What is installed: the wheel, what it depends on, and the lock files."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-demo.lock", "requirements-test.lock")
PEER_LOCK = "requirements-acme2certifier.lock"  # a program that tests run against
PACKAGES = ("agent", "enroll")


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def normal(name: str) -> str:
    """A distribution name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[^A-Za-z0-9._-]", requirement)[0]) for requirement in requirements}


def locked(lock: str) -> dict[str, str]:
    """Name and version of everything in a lock file."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE)
    return {normal(name): version for name, version in pins}


@pytest.mark.parametrize("lock", [*LOCKS, PEER_LOCK])
def test_every_locked_package_has_hashes(lock: str) -> None:
    text = re.sub(r"^ *#.*\n", "", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE)
    requirements = text.replace("\\\n", " ").splitlines()

    assert [line for line in requirements if not re.search(r"==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []


@pytest.mark.parametrize("lock", [*LOCKS, PEER_LOCK])
def test_lock_files_name_no_registry(lock: str) -> None:
    assert re.findall(r"://|--(?:extra-)?index-url|--find-links|--trusted-host", (ROOT / lock).read_text()) == []


def test_the_tests_run_with_the_versions_that_are_installed() -> None:
    installed, shown, tested = map(locked, LOCKS)

    assert installed.items() <= shown.items() <= tested.items()


def test_the_locks_hold_everything_that_is_declared() -> None:
    extras = project()["optional-dependencies"]

    assert names(project()["dependencies"]) | names(extras["pkcs11"]) | names(extras["tls"]) <= set(
        locked("requirements.lock")
    )
    assert names(extras["demo"]) <= set(locked("requirements-demo.lock"))
    assert names(extras["test"]) <= set(locked("requirements-test.lock"))


def test_what_is_declared_is_what_is_imported() -> None:
    distributions = metadata.packages_distributions()
    imported = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            imported |= {module.partition(".")[0] for module in modules}
    imported -= {*sys.stdlib_module_names, *PACKAGES}
    extras = project()["optional-dependencies"]
    wanted = [*project()["dependencies"], *extras["pkcs11"], *extras["tls"], *extras["tpm"], *extras["demo"]]
    declared = names(wanted) - {"pydicom-data", "scanseal"}  # only files, and another extra

    assert {normal(distributions[module][0]) for module in imported} == declared


def test_every_dependency_has_its_line_in_the_documentation() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    described = {normal(name) for name in re.findall(r"`([A-Za-z0-9._-]+)`", page)}
    debian = (ROOT / "scripts" / "debian-packages.txt").read_text(encoding="utf-8").split()

    assert {*locked("requirements-test.lock"), *debian} - described == set()


def test_the_console_script_leads_to_a_function() -> None:
    assert callable(resolve_name(project()["scripts"]["scanseal"]))


def test_the_wheel_holds_the_two_packages_with_their_data_and_nothing_else(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in (*PACKAGES, "systemd", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    program = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, tmp_path], cwd=tree, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("scanseal-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}

    sources = (path for name in PACKAGES for path in (tree / name).rglob("*") if path.is_file())
    assert packed == {path.relative_to(tree).as_posix() for path in sources}
