"""All of EST (RFC 7030, 8951, 9908) that a scanner does, against the evaluation server, as the operator types it.

Over TLS 1.2 and over TLS 1.3, with the device key in software and in a token. With a token each command is a process of
its own: OpenSSL keeps what it has loaded for it.
"""

from __future__ import annotations

import io
import json
import ssl
import subprocess
import sys
from contextlib import AbstractContextManager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from agent.cli import exits
from agent.cli.main import run
from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.config import EnrollSettings
from enroll.enroller import Enroller
from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.est_attributes import CsrAttributes
from enroll.evaluation.est_authentication import Authentication, DigestAlgorithm
from enroll.evaluation.est_server import EstOptions, EstServer
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.issue import issue
from enroll.options import read_settings, read_toml
from enroll.statefile import StateFiles
from enroll.tls import RouteName
from tests.support.device_keys import TokenScanner, in_softhsm, in_software, needs_route
from tests.support.enrolling import CaFlow
from tests.support.est_peer import ANSWERS, BODIES, EstPeer, Oddities
from tests.support.flow_servers.est import approve_all
from tests.support.pki import DEVICE, HospitalCa
from tests.support.softhsm import softhsm_of_this_process

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@dataclass
class Site:
    """A hospital with its CA, and a scanner in it.

    Args:
        scanner: The scanner.
        version: The only one of TLS that is spoken; None for both.
        lines: What the server logged.
    """

    scanner: TokenScanner
    version: ssl.TLSVersion | None
    lines: list[str] = field(default_factory=list)

    @property
    def ca(self) -> EvaluationCa:
        return self.scanner.hospital.ca

    @property
    def address(self) -> tuple[str, int]:
        """Of the server."""
        return ("127.0.0.1", int(self.scanner.hospital.url.rpartition(":")[2]))

    def server(self, **options: Any) -> AbstractContextManager[EstServer]:
        """The server at its address."""
        return EstServer(self.ca, self.address, self.lines.append, EstOptions(tls_version=self.version, **options))

    def peer(self, odd: Oddities) -> AbstractContextManager[EstServer]:
        """One with oddities, in its place."""
        return EstPeer(self.ca, odd, EstOptions(tls_version=self.version), self.address)

    def configure(self, **est: Any) -> None:
        """Change [est]."""
        self.scanner.tables["est"] = {**self.scanner.tables.get("est", {}), **est}

    def scanseal(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Exit code and JSON of a command."""
        arguments = [*words, "--config", str(self.scanner.configure()), "--json"]
        if "keystore.pkcs11" in self.scanner.tables:
            command = [sys.executable, "-m", "agent.cli.main", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            code, output, errors = done.returncode, done.stdout, done.stderr
        else:
            with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr:
                code = run(arguments)
            output, errors = stdout.getvalue(), stderr.getvalue()
        assert "Traceback" not in errors
        return code, json.loads(output or errors.splitlines()[-1])

    def enroll(self, identity: IdentityName = IdentityName.DEVICE) -> tuple[int, dict[str, Any]]:
        return self.scanseal("enroll", "est", "--identity", identity.value)

    def enrolled(self, identity: IdentityName = IdentityName.DEVICE) -> Generation:
        """Enroll, which must succeed."""
        code, said = self.enroll(identity)
        assert code == exits.OK, said
        generation = self.identities.current(identity)
        assert generation is not None
        return generation

    @property
    def identities(self) -> IdentityStore:
        return IdentityStore(self.scanner.directory / "state", StateFiles())

    def operations(self) -> list[str]:
        """What was asked for, in this order, with the status of the answer."""
        return [line.partition("/est/")[2].replace(' HTTP/1.1"', "").partition(" -")[0] for line in self.lines]


PLACES = ("software", "softhsm")
ROWS = [*product(PLACES, (TLS_1_2, TLS_1_3))]
of_both_versions = pytest.mark.parametrize(
    "site", [(place, None) for place in PLACES], indirect=True, ids=lambda row: str(row[0])
)


@pytest.fixture(params=ROWS, ids=lambda row: f"{row[0]}-{row[1].name}")
def site(request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    place, version = request.param
    if place == "software":
        return Site(in_software(tmp_path, KeyAlgorithm.P_256), version)
    needs_route(RouteName.SIGNER)
    softhsm = softhsm_of_this_process(tmp_path_factory.getbasetemp())
    return Site(in_softhsm(tmp_path, KeyAlgorithm.P_256, softhsm), version)


# --- enrollment and renewal (RFC 7030 4.2)


def test_first_by_password_then_by_the_certificate_alone(site: Site) -> None:
    with site.server():
        first = site.enrolled()
    site.configure(username="", password_file="")
    with site.server(authentication=Authentication.CERTIFICATE, demands_certificate=True):
        second, signing = site.enrolled(), site.enrolled(IdentityName.SIGNING)

    assert second.key_uri != first.key_uri
    assert signing.certificate.issuer == site.ca.certificate.subject
    posted = [operation for operation in site.operations() if "enroll" in operation]
    assert [operation.split()[0] for operation in posted[-2:]] == ["simplereenroll", "simpleenroll"]


@pytest.mark.parametrize("algorithm", list(DigestAlgorithm))
def test_the_password_does_not_travel_with_digest(site: Site, algorithm: DigestAlgorithm) -> None:
    with site.server(authentication=Authentication.DIGEST, digest_algorithms=(algorithm,)):
        site.enrolled()


def test_of_two_ways_of_digest_one_will_do(site: Site) -> None:
    algorithms = (DigestAlgorithm.SHA_256, DigestAlgorithm.MD5)
    with site.server(authentication=Authentication.DIGEST, digest_algorithms=algorithms):
        site.enrolled()


def test_the_password_beside_the_certificate(site: Site) -> None:
    with site.server():
        site.enrolled()
    with site.server(authentication=Authentication.CERTIFICATE_AND_BASIC):
        site.enrolled()
        site.enrolled(IdentityName.SIGNING)


@pytest.mark.parametrize("way", [Authentication.BASIC, Authentication.DIGEST])
def test_a_wrong_password_is_hospital_its_to_correct(site: Site, way: Authentication) -> None:
    wrong = site.scanner.directory / "wrong"
    wrong.write_text("guess")
    wrong.chmod(0o600)
    site.configure(password_file=wrong)
    with site.server(authentication=way):
        code, said = site.enroll()

    assert code == exits.NOT_PERMITTED
    assert said["error"]["who_must_act"] == "hospital IT"
    assert sum("simpleenroll" in operation for operation in site.operations()) <= 2  # nobody is locked out


def test_the_factory_identity_brings_the_first_certificate(site: Site) -> None:
    vendor = HospitalCa("Vendor CA")
    factory_identity(site, vendor)
    site.configure(username="", password_file="")
    with site.server(vendors=(vendor.certificate,), authentication=Authentication.CERTIFICATE):
        first = site.enrolled()

    assert first.certificate.issuer == site.ca.certificate.subject
    assert site.identities.current(IdentityName.IDEVID) is not None


def factory_identity(site: Site, vendor: HospitalCa) -> None:
    """As the vendor's service line puts it into the scanner, with its key where the device keys are."""
    settings = read_settings(EnrollSettings, read_toml(site.scanner.configure(), StateFiles()), "")
    with Enroller.configured(settings, SystemClock(), StateFiles()) as enroller:
        context = enroller.context
        flow = CaFlow(vendor, context.clock, FlowName.VENDOR)
        stores, identities = context.stores, context.identities
        issue(IdentityName.IDEVID, settings, stores=stores, identities=identities, flow=flow, clock=context.clock)


def test_a_device_that_the_ca_does_not_want_is_told_so(site: Site) -> None:
    with site.server(refused_serial_numbers=frozenset({DEVICE.serial_number})):
        code, said = site.enroll()

    assert code == exits.NOT_PERMITTED
    assert "This device gets nothing here" in said["error"]["what"]
    assert said["error"]["who_must_act"] == "CA operator"


# --- labels (RFC 7030 3.2.2)


def test_a_label_is_part_of_every_address(site: Site) -> None:
    site.configure(label="imaging")
    with site.server(labels=("imaging",)):
        site.enrolled()
        site.enrolled()

    assert all(operation.startswith("imaging/") for operation in site.operations())


def test_a_label_that_the_server_does_not_have_is_told(site: Site) -> None:
    site.configure(label="radiology")
    with site.server(labels=("imaging",)):
        code, said = site.enroll()

    assert code != exits.OK
    assert "label" in said["error"]["what"] + said["error"]["remedy"]


# --- first trust (RFC 7030 4.1.1)


def test_first_trust_by_the_fingerprint_from_paper(site: Site) -> None:
    digits = site.ca.certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    site.configure(anchor_file="", anchor_fingerprint=digits)
    with site.server():
        site.enrolled()
        site.enrolled()


def test_nothing_is_sent_to_a_server_without_the_certificate_with_the_fingerprint(site: Site) -> None:
    digits = HospitalCa().certificate.fingerprint(hashes.SHA256()).hex()
    site.configure(anchor_file="", anchor_fingerprint=digits)
    with site.server():
        code, said = site.enroll()

    assert code != exits.OK
    assert said["error"]["code"] == "anchor-fingerprint"
    assert {operation.split()[0] for operation in site.operations()} <= {"cacerts"}


# --- a new key of the CA (RFC 7030 4.1.3)


def test_old_and_new_anchor_stand_side_by_side(site: Site) -> None:
    with site.server():
        before = site.enrolled()
    site.ca.roll_over()
    with site.server():
        after, signing = site.enrolled(), site.enrolled(IdentityName.SIGNING)

    old, new = site.ca.roots
    before.certificate.verify_directly_issued_by(old)
    after.certificate.verify_directly_issued_by(new)
    signing.certificate.verify_directly_issued_by(new)
    (kept,) = (site.scanner.directory / "state" / "anchors").glob("est-*.pem")
    assert x509.load_pem_x509_certificates(kept.read_bytes()) == [new]


def test_a_scanner_that_was_away_for_several_new_keys_comes_back(site: Site) -> None:
    with site.server():
        site.enrolled()
    site.ca.roll_over()
    site.ca.roll_over()
    with site.server():
        generation = site.enrolled()

    generation.certificate.verify_directly_issued_by(site.ca.roots[2])


# --- csrattrs (RFC 7030 4.5, RFC 8951 4, RFC 9908)


@pytest.mark.parametrize("form", list(CsrAttributes))
def test_in_whatever_form_the_ca_says_what_it_wants(site: Site, form: CsrAttributes) -> None:
    with site.server(attributes=form):
        site.enrolled()
        site.enrolled(IdentityName.SIGNING)

    asked = [operation.split()[0] for operation in site.operations()]
    assert asked.index("csrattrs") < asked.index("simpleenroll")


# --- waiting (RFC 7030 4.2.3)


def test_a_request_that_waits_survives_the_process(site: Site) -> None:
    with site.server(approve_by_hand=True, retry_after="120") as server:
        code, said = site.enroll()
        assert code == exits.TRY_LATER, said
        waiting = site.identities.journal(IdentityName.DEVICE).read()
        assert waiting is not None
        before = len(site.lines)
        assert site.enroll()[0] == exits.TRY_LATER
        assert len(site.lines) == before  # Retry-After is not over
        approve_all(server)
        forget_until(site)
        generation = site.enrolled()

    assert generation.key_uri == waiting.key_uri
    assert len(list((site.ca.directory / "issued").iterdir())) == 1


def forget_until(site: Site) -> None:
    """The time to ask again has come."""
    journal = site.identities.journal(IdentityName.DEVICE)
    pending = journal.read()
    assert pending is not None
    journal.write(replace(pending, until=None))


# --- proof of possession (RFC 7030 3.5)


@of_both_versions
@pytest.mark.parametrize("form", [CsrAttributes.NONE, CsrAttributes.ATTRIBUTES, CsrAttributes.TEMPLATE])
def test_a_request_is_linked_to_its_connection(site: Site, form: CsrAttributes) -> None:
    """The server speaks both versions: the client goes back to the one that has a tls-unique."""
    with site.server(proof_of_possession=True, attributes=form):
        first, second = site.enrolled(), site.enrolled()

    assert first.key_uri != second.key_uri


def test_a_request_is_linked_to_its_connection_or_not_sent(site: Site) -> None:
    with site.server(proof_of_possession=True):
        code, said = site.enroll()

    if site.version is TLS_1_2:
        assert code == exits.OK, said
        return
    assert code != exits.OK
    assert said["error"]["code"] == "proof-of-possession-impossible"
    assert not any("simpleenroll" in operation for operation in site.operations())


@of_both_versions
@pytest.mark.parametrize("way", [Authentication.DIGEST, Authentication.CERTIFICATE_AND_BASIC])
def test_the_link_holds_where_the_password_is_asked_for_first(site: Site, way: Authentication) -> None:
    if way is Authentication.CERTIFICATE_AND_BASIC:
        with site.server():
            site.enrolled()
    with site.server(proof_of_possession=True, authentication=way):
        site.enrolled()


@of_both_versions
def test_a_request_that_waits_is_linked_anew(site: Site) -> None:
    """Another connection, another challenge password, the same key."""
    with site.server(proof_of_possession=True, approve_by_hand=True) as server:
        assert site.enroll()[0] == exits.TRY_LATER
        approve_all(server)
        forget_until(site)
        site.enrolled()


# --- bodies (RFC 8951 3) and serverkeygen (RFC 7030 4.4); tests/interop/test_est_peers.py has all the forms


def test_bodies_go_out_in_lines_and_come_in_anyhow(site: Site) -> None:
    with site.peer(Oddities(newline_strict=True, body=BODIES["PEM armour PKCS7"].value)):
        site.enrolled()
    with site.peer(Oddities(newline_strict=True, body=BODIES["one line"].value)):
        site.enrolled()


def test_a_key_that_the_server_made_is_refused(site: Site) -> None:
    with site.peer(Oddities(answer=ANSWERS["a key made by the server"])):
        code, said = site.enroll()

    assert code != exits.OK
    assert said["error"]["code"] == "protocol-violation"
    assert site.identities.current(IdentityName.DEVICE) is None
