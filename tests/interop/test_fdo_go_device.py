"""FIDO Device Onboard: the device of go-fdo at our servers, and rendezvous between ours and those of go-fdo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from enroll.evaluation.fdo.to0 import Registration
from enroll.fdo.rendezvous import encode_rendezvous
from enroll.fdo.tunnel import CipherSuite
from enroll.flows.settings import FdoCipher
from enroll.identity import Generation
from tests.support.fdo.go_matrix import ENCRYPT_THEN_MAC, KINDS, MATRIX, Kind, Row, assert_certified_by, initialized
from tests.support.fdo.go_peer import GoServer, run_go_device, running_go_server
from tests.support.fdo.parties import Parties, address_of, directive_of, http_channel
from tests.support.fdo.scanner import FdoScanner


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with Parties(tmp_path_factory.mktemp("parties")) as running:
        yield running


@pytest.fixture(scope="module")
def keys_in_go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One key of each kind for all devices in Go: RSA keys take their time."""
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def go_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoServer]:
    with running_go_server(tmp_path_factory.mktemp("go")) as server:
        yield server


@pytest.fixture(scope="module")
def go_elsewhere(parties: Parties, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoServer]:
    """Registers its owners at our rendezvous server."""
    with running_go_server(tmp_path_factory.mktemp("elsewhere"), "-rendezvous", parties.url) as server:
        yield server


class TestTheDeviceInGo:
    @pytest.mark.parametrize("row", MATRIX, ids=str)
    def test_gets_its_certificate_from_our_servers(self, row: Row, parties: Parties, keys_in_go: Path) -> None:
        device = run_go_device(parties.url, *row.go_options, "-key-file", str(keys_in_go / row.kind.algorithm))

        assert not device.failure
        (onboarding,) = device.onboardings
        certificate = from_base64(onboarding["certificate"])
        certificate.verify_directly_issued_by(parties.ca.certificate)
        assert [from_base64(each) for each in onboarding["ca_certificates"]] == [parties.ca.certificate]

    @pytest.mark.parametrize("cipher", ENCRYPT_THEN_MAC)
    def test_speaks_cbc_and_ctr_where_our_owner_takes_them(self, cipher: FdoCipher, tmp_path: Path) -> None:
        with Parties(tmp_path, ciphers=frozenset(CipherSuite)) as parties:
            assert not run_go_device(parties.url, "-cipher", cipher).failure

    def test_is_refused_cbc_and_ctr_else(self, parties: Parties) -> None:
        assert "is not used here" in run_go_device(parties.url, "-cipher", FdoCipher.AES128_CBC).failure

    def test_gets_a_new_credential_each_time(self, parties: Parties) -> None:
        device = run_go_device(parties.url, "-times", "3")

        assert not device.failure
        assert len({each["guid"] for each in device.onboardings}) == 3

    def test_keeps_its_credential_only_where_it_may_be_reused(self, tmp_path: Path) -> None:
        with Parties(tmp_path, reuse=True) as parties:
            allowing = run_go_device(parties.url, "-times", "2", "-reuse")
            refusing = run_go_device(parties.url)

        assert [each["reused"] for each in allowing.onboardings] == [True, True]
        assert len({each["guid"] for each in allowing.onboardings}) == 1
        assert "credential reuse is not enabled" in refusing.failure

    def test_finds_our_owner_without_rendezvous_server(self, tmp_path: Path) -> None:
        with Parties(tmp_path, bypass=True) as parties:
            device = run_go_device(parties.url, "-times", "2")

        assert not device.failure


class TestRendezvous:
    @pytest.mark.parametrize("kind", KINDS, ids=str)
    def test_our_owner_is_known_at_the_server_in_go(
        self, kind: Kind, go_server: GoServer, parties: Parties, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        there = Registration(partial(http_channel, go_server.url), (address_of(parties.url),))
        monkeypatch.setattr(parties, "owner", replace(parties.owner, registration=there))
        terms = replace(parties.manufacturer.terms, rendezvous=encode_rendezvous([directive_of(go_server.url)]))
        monkeypatch.setattr(parties, "manufacturer", replace(parties.manufacturer, terms=terms))
        scanner = FdoScanner(tmp_path)
        scanner.initialize(parties.channel(), kind.algorithm, kind.encoding)

        assert isinstance(scanner.onboard(), Generation)

    @pytest.mark.parametrize("kind", KINDS, ids=str)
    def test_the_owner_in_go_is_known_at_our_server(self, kind: Kind, go_elsewhere: GoServer, tmp_path: Path) -> None:
        scanner = initialized(tmp_path, go_elsewhere, kind)

        generation = scanner.onboard()

        assert isinstance(generation, Generation)
        assert_certified_by(go_elsewhere, scanner, generation)


def from_base64(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n".encode())
