"""What every way to a certificate keeps, each against its real server."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

import enroll.flows
from enroll.enroller import Enroller
from enroll.errors import EnrollmentRefused, ServerUnreachable
from enroll.flows.base import Pending
from enroll.identity import Generation
from tests.support.flow_servers import FlowServer

FLOWS = ["est", "acme", "cmp", "vendor", "scep", "fdo"]
WITH_APPROVAL = ["est", "cmp"]  # the servers of the others decide at once


@pytest.fixture(params=FLOWS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FlowServer]:
    with importlib.import_module(f"tests.support.flow_servers.{request.param}").server(tmp_path) as running:
        yield running


def ask(server: FlowServer) -> Generation | Pending:
    """One run of the enroller, as after a restart."""
    with Enroller(server.scanner.restarted().context) as enroller:
        answer = enroller.enroll(server.identity, server.flow)
    assert isinstance(answer, Generation | Pending)
    return answer


def serial_numbers(server: FlowServer) -> list[int]:
    store = server.scanner.identities
    directories = (store.directory(server.identity) / "generations").iterdir()
    return [
        x509.load_pem_x509_certificate((directory / "certificate.pem").read_bytes()).serial_number
        for directory in directories
    ]


def test_the_certificate_is_in_use_with_its_key(server: FlowServer) -> None:
    generation = ask(server)

    assert isinstance(generation, Generation)
    assert generation.flow == server.flow
    assert server.scanner.matching_pair(server.identity) == generation


def test_a_renewal_brings_a_new_key_and_a_new_certificate(server: FlowServer) -> None:
    first, second = ask(server), ask(server)

    assert isinstance(first, Generation)
    assert isinstance(second, Generation)
    assert second.key_uri != first.key_uri
    assert second.certificate.serial_number != first.certificate.serial_number
    assert server.scanner.matching_pair(server.identity) == second


def test_a_refusal_says_who_must_act_and_leaves_what_is_in_use(server: FlowServer) -> None:
    in_use = ask(server)
    server.refuse()

    with pytest.raises(EnrollmentRefused) as refused:
        ask(server)

    assert refused.value.who_must_act
    assert server.scanner.matching_pair(server.identity) == in_use


def test_a_server_that_is_gone_leaves_what_is_in_use_and_the_request_under_way(server: FlowServer) -> None:
    in_use = ask(server)
    server.stop()

    keys = set()
    for _ in range(2):
        if server.searches:
            assert isinstance(ask(server), Pending)
        else:
            with pytest.raises(ServerUnreachable):
                ask(server)
        pending = server.scanner.identities.journal(server.identity).read()
        assert pending is not None
        keys.add(pending.key_uri)

    assert len(keys) == 1  # the same request, not one more for each try
    assert server.scanner.matching_pair(server.identity) == in_use


@pytest.mark.parametrize("server", WITH_APPROVAL, indirect=True)
def test_a_request_that_waits_is_the_same_one_until_it_is_decided(server: FlowServer) -> None:
    assert server.wait
    assert server.go_on
    server.wait()
    first = ask(server)
    assert isinstance(first, Pending)
    waiting = server.scanner.identities.journal(server.identity).read()

    server.go_on()
    server.scanner.forget_until(server.identity)
    generation = ask(server)

    assert waiting is not None
    assert isinstance(generation, Generation)
    assert generation.key_uri == waiting.key_uri
    assert len(serial_numbers(server)) == 1


def test_what_would_be_sent_is_told_without_sending(server: FlowServer) -> None:
    server.stop()

    with Enroller(server.scanner.context) as enroller:
        plan = enroller.plan(server.identity, server.flow)

    assert plan
    assert all(exchange.to and exchange.what and exchange.proof for exchange in plan)


def test_its_name_is_that_of_its_module(server: FlowServer) -> None:
    (folder,) = enroll.flows.__path__

    assert Path(folder, f"{server.flow}.py").is_file() or Path(folder, server.flow).is_dir()
