"""Whatever fails, and wherever: a typed error, and the next run brings the operation to its end (R2, R4).

Every single operation on a file, a key store, a connection and the clock fails once, in a trial of its own. After it
there is one matching pair or none yet, the request under way goes on with its key, what was issued is not asked for
once more, and after the collector there is no key that nothing needs.

In process, every operation fails; against servers, those of a fixed stride, because each trial takes some handshakes.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from enroll.enroller import Enroller
from enroll.errors import ScansealError
from enroll.flows.base import Pending
from enroll.identity import Generation
from enroll.journal import Step
from tests.support.flow_servers import FlowServer
from tests.support.reliability.fault_cases import IN_PROCESS, Case, assert_tidy, in_world
from tests.support.reliability.fault_ports import KINDS, FaultPorts
from tests.support.reliability.measured import measured

RENEWAL = next(case for case in IN_PROCESS if case.name == "renewal")
STRIDES = {"est": 1, "vendor": 7, "cmp": 7, "scep": 7, "acme": 11, "fdo": 41}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here, so nothing has to reach the disk; `FaultyFiles` counts and fails fsync all the same.

    What is logged of a thousand faults hides the one that matters.
    """
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)


def sweep(case: Case, folder: Path, way: int | None = None) -> Counter[str]:
    """Fail every operation of a case in one way, or in all of them by turns; what was struck, by port."""
    start = folder / "start"
    start.mkdir()
    made = case.prepare(start)
    struck: Counter[str] = Counter()
    for at in itertools.count(1):
        trial = folder / f"trial-{at}"
        shutil.copytree(start, trial, symlinks=True)
        ports = FaultPorts(trial / "state", at, at if way is None else way)
        with contextlib.suppress(ScansealError):  # anything else is a fault of ours
            case.act(trial, ports, made)
        if not ports.struck:
            break
        struck[ports.struck.partition(":")[0]] += 1
        try:
            case.recover(trial, made)
        except (AssertionError, ScansealError) as error:
            error.add_note(f"after operation {at}: {ports.struck}")
            raise
        shutil.rmtree(trial)
    return struck


@pytest.mark.parametrize("case", IN_PROCESS, ids=lambda case: case.name.replace(" ", "-"))
def test_any_one_fault_is_typed_and_costs_nothing(case: Case, tmp_path: Path) -> None:
    """R4; the ways to fail take turns."""
    struck = sweep(case, tmp_path)

    assert struck["files"] > 5
    measured("R4", f"any one operation fails, all of them: {case.name}", points=struck.total(), failures=0, **struck)


@pytest.mark.parametrize("way", range(KINDS), ids=["ENOSPC", "EIO", "EMFILE", "EROFS"])
def test_a_renewal_survives_each_error_of_the_disk_at_each_call(way: int, tmp_path: Path) -> None:
    """R4: ENOSPC, EIO, EMFILE, EROFS at every call."""
    struck = sweep(RENEWAL, tmp_path, way)

    assert struck["files"] > 200
    name = ["ENOSPC", "EIO", "EMFILE", "EROFS"][way]
    measured(
        "R4", f"any one operation fails, all of them: renewal, {name}", points=struck.total(), failures=0, **struck
    )


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
    ports = FaultPorts(scanner.settings.state_directory, at, at // STRIDES[server.flow])
    with contextlib.suppress(ScansealError):
        run_once(server, ports)
    try:
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
    except (AssertionError, ScansealError) as error:
        error.add_note(f"after operation {at}: {ports.struck}")
        raise
    return ports.struck


@pytest.mark.parametrize("flow", [flow for flow in STRIDES if flow != "fdo"])
def test_a_fault_of_a_renewal_over_a_network_is_typed_and_costs_nothing(flow: str, tmp_path: Path) -> None:
    """R2, R4, with the folder of the scanner put back for each trial: no server remembers it."""
    struck: Counter[str] = Counter()
    site = tmp_path / "site"
    site.mkdir()
    with importlib.import_module(f"tests.support.flow_servers.{flow}").server(site) as server:
        run_to_the_end(server)
        state, kept = server.scanner.settings.state_directory, tmp_path / "kept"
        shutil.copytree(state, kept, symlinks=True)
        for at in itertools.count(1, STRIDES[flow]):
            shutil.rmtree(state)
            shutil.copytree(kept, state, symlinks=True)
            found = one_fault(server, at)
            if not found:
                break
            struck[found.partition(":")[0]] += 1

    assert struck["HTTP"]
    what = f"any one operation fails, one of {STRIDES[flow]}: renewal by {flow}"
    measured("R4", what, points=struck.total(), failures=0, **struck)


def test_a_fault_of_an_onboarding_is_typed_and_costs_nothing(tmp_path: Path) -> None:
    """R2, R4, with servers of its own for each trial: both sides have new credentials after an onboarding."""
    struck: Counter[str] = Counter()
    for at in itertools.count(1, STRIDES["fdo"]):
        site = tmp_path / f"site-{at}"
        site.mkdir()
        with importlib.import_module("tests.support.flow_servers.fdo").server(site) as server:
            found = one_fault(server, at)
        if not found:
            break
        struck[found.partition(":")[0]] += 1

    assert struck["HTTP"]
    what = f"any one operation fails, one of {STRIDES['fdo']}: onboarding by fdo"
    measured("R4", what, points=struck.total(), failures=0, **struck)
