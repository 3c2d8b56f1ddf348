"""Whatever fails, and wherever: a typed error, and the next run brings the operation to its end (R2, R4).

Every single operation on a file, a key store, a connection and the clock fails once, in a trial of its own. After it
there is one matching pair or none yet, the request under way goes on with its key, what was issued is not asked for
once more, and after the collector there is no key that nothing needs.

In process, every operation fails; against servers, those of a fixed stride, because each trial takes some handshakes.
With SCANSEAL_EVERY_FAULT=1 every operation fails there, too, which takes minutes for each flow.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import itertools
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from enroll.clock import SystemClock
from enroll.enroller import Enroller
from enroll.errors import ScansealError
from enroll.flows.base import Pending
from enroll.identity import Generation
from enroll.journal import Step
from tests.support.flow_servers import FlowServer
from tests.support.reliability.fault_cases import IN_PROCESS, Case, assert_tidy, in_world
from tests.support.reliability.fault_ports import ERRORS, KINDS, FaultPorts
from tests.support.reliability.fault_watches import WATCHES, revocation_cases
from tests.support.reliability.measured import measured

RENEWAL = next(case for case in IN_PROCESS if case.name == "renewal")
WAYS = [errno.errorcode[number] for number in ERRORS]
STRIDES = {"est": 1, "vendor": 7, "cmp": 7, "scep": 7, "acme": 11, "fdo": 41}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here, so nothing has to reach the disk; `FaultyFiles` counts and fails fsync all the same.

    What is logged of a thousand faults hides the one that matters. No server here needs the time that it asks for.
    """
    monkeypatch.setattr(SystemClock, "sleep", lambda _, seconds: time.sleep(min(seconds, 0.02)))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)


def sweep(trial: Callable[[int], str], first: int = 1, stride: int = 1) -> Counter[str]:
    """Let one operation after the other fail, each in a trial of its own, until none is left.

    Args:
        trial: Of the operation with this number: what failed, or nothing where there are not so many.
        first: The number of the first that fails.
        stride: How many there are from one to the next.

    Returns:
        How often each port failed.
    """
    found = map(trial, itertools.count(first, stride))
    return Counter(struck.partition(":")[0] for struck in itertools.takewhile(bool, found))


@contextlib.contextmanager
def named(at: int, ports: FaultPorts) -> Iterator[None]:
    """What goes wrong in this block says after which fault."""
    try:
        yield
    except (AssertionError, ScansealError) as error:
        error.add_note(f"after operation {at}: {ports.struck}")
        raise


def sweep_case(case: Case, folder: Path, way: int | None = None, begin: int = 0) -> Counter[str]:
    """Fail every operation of a case in one way, or in all of them by turns, from `begin` on."""
    start = folder / "start"
    start.mkdir(parents=True)
    made = case.prepare(start)

    def trial(at: int) -> str:
        place = folder / f"trial-{at}"
        shutil.copytree(start, place, symlinks=True)
        ports = FaultPorts(place / "state", at, at + begin if way is None else way)
        with contextlib.suppress(ScansealError), named(at, ports):  # any other exception is a fault of ours
            case.act(place, ports, made)
        if ports.struck:
            with named(at, ports):
                case.recover(place, made)
        shutil.rmtree(place)
        return ports.struck

    return sweep(trial)


@pytest.mark.parametrize("case", [*IN_PROCESS, *WATCHES], ids=lambda case: case.name.replace(" ", "-"))
def test_any_one_fault_is_typed_and_costs_nothing(case: Case, tmp_path: Path) -> None:
    """R4; the ways to fail take turns."""
    struck = sweep_case(case, tmp_path)

    assert struck["files"] > 5
    _keep(f"all of them: {case.name}", struck)


@pytest.mark.parametrize("way", range(KINDS), ids=WAYS)
def test_a_renewal_survives_each_error_of_the_disk_at_each_call(way: int, tmp_path: Path) -> None:
    """R4: ENOSPC, EIO, EMFILE, EROFS at every call."""
    struck = sweep_case(RENEWAL, tmp_path, way)

    assert struck["files"] > 200
    _keep(f"all of them: renewal, {WAYS[way]}", struck)


def test_no_one_fault_loses_a_revocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: what the CA has revoked is known at the next run at the latest, and what was known stays so.

    The looks are alike; so each begins with another way to fail, and an operation fails in more than one.
    """
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)  # the lists come over plain HTTP, and reading all roots takes long
    with revocation_cases() as cases:
        for number, case in enumerate(cases):
            for way in range(KINDS) if is_every() else [None]:
                struck = sweep_case(case, tmp_path / f"{number}-{way}", way, number)
                assert struck["files"] > 50
                assert struck["HTTP"] > 1
                _keep(f"all of them: {case.name}{'' if way is None else f', {WAYS[way]}'}", struck)


def is_every() -> bool:
    """Whether time does not count."""
    return os.environ.get("SCANSEAL_EVERY_FAULT") == "1"


def _keep(what: str, struck: Counter[str]) -> None:
    measured("R4", f"any one operation fails, {what}", points=struck.total(), failures=0, **struck)


# --- against the server of each flow


def run_once(server: FlowServer, ports: FaultPorts | None = None) -> Generation | Pending:
    """One run of the enroller, in the world of `ports`."""
    scanner = server.scanner.restarted()
    if ports is None:
        with Enroller(replace(scanner.context, at_once=True)) as enroller:
            answer = enroller.enroll(server.identity, server.flow)
    else:
        context = in_world(scanner, ports, scanner.clock).context
        with ports.installed(), Enroller(context) as enroller:
            answer = enroller.enroll(server.identity, server.flow)
    assert isinstance(answer, Generation | Pending)
    return answer


def run_to_the_end(server: FlowServer) -> Generation:
    """As a person does, who does not wait for the time that was named."""
    for _ in range(5):
        answer = run_once(server)
        if isinstance(answer, Generation):
            return answer
        server.scanner.forget_until(server.identity)
    raise AssertionError("It does not come to its end.")


def one_fault(server: FlowServer, at: int) -> str:
    """Fail one operation of a run, then go on; what was struck."""
    scanner = server.scanner.restarted()
    before = scanner.identities.current(server.identity)
    ports = FaultPorts(scanner.settings.state_directory, at, at // stride_of(server.flow))
    with contextlib.suppress(ScansealError):
        run_once(server, ports)
    with named(at, ports):
        current = scanner.matching_pair(server.identity)
        pending = scanner.identities.journal(server.identity).read()
        assert before is None or current is not None
        issued: tuple[x509.Certificate, ...] = ()
        if pending and pending.step in (Step.ISSUED, Step.VERIFIED):
            issued, _ = scanner.identities.journal(server.identity).read_issued()
        if current == before or pending:
            generation = run_to_the_end(server)
            assert not issued or generation.certificate in issued  # nothing was asked for once more
        assert scanner.matching_pair(server.identity) is not None
        assert_tidy(scanner)
    return ports.struck


def stride_of(flow: str) -> int:
    """How many operations there are from one that fails to the next."""
    return 1 if is_every() else STRIDES[flow]


def sweep_flow(flow: str, trial: Callable[[int], str], what: str) -> None:
    """The same of a flow, by its stride; the flows share the transaction, so each begins at another operation of it."""
    stride = stride_of(flow)
    struck = sweep(trial, 1 + list(STRIDES).index(flow) % stride, stride)

    assert struck["HTTP"]
    _keep(f"{'all of them' if stride == 1 else f'one of {stride}'}: {what} by {flow}", struck)


@pytest.mark.parametrize("flow", [flow for flow in STRIDES if flow != "fdo"])
def test_a_fault_of_a_renewal_over_a_network_is_typed_and_costs_nothing(flow: str, tmp_path: Path) -> None:
    """R2, R4, with the folder of the scanner put back for each trial: no server remembers it."""
    site, kept = tmp_path / "site", tmp_path / "kept"
    site.mkdir()
    with importlib.import_module(f"tests.support.flow_servers.{flow}").server(site) as server:
        run_to_the_end(server)
        state = server.scanner.settings.state_directory
        shutil.copytree(state, kept, symlinks=True)

        def trial(at: int) -> str:
            shutil.rmtree(state)
            shutil.copytree(kept, state, symlinks=True)
            return one_fault(server, at)

        sweep_flow(flow, trial, "renewal")


def test_a_fault_of_an_onboarding_is_typed_and_costs_nothing(tmp_path: Path) -> None:
    """R2, R4, with servers of its own for each trial: both sides have new credentials after an onboarding."""

    def trial(at: int) -> str:
        site = tmp_path / f"site-{at}"
        site.mkdir()
        with importlib.import_module("tests.support.flow_servers.fdo").server(site) as server:
            return one_fault(server, at)

    sweep_flow("fdo", trial, "onboarding")
