"""The vendor's provisioning service over TLS, and its vendor-wide certificates: from the ticket to the signed image."""

from __future__ import annotations

import io
import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.cli import exits
from agent.cli.evaluation_vendor import command as evaluation_vendor
from agent.cli.main import run
from agent.client import SigningClient
from enroll.certificates import serial_text
from enroll.clock import SystemClock
from enroll.config import IdentitySettings, StoreName, VendorIdentitySettings
from enroll.csr import CertificateRequest, Usage, build, hardware_module_name
from enroll.enroller import Enroller
from enroll.errors import ConfigurationError, EnrollmentRefused, ScansealError, StateError
from enroll.evaluation.vendor_ca import VendorCa
from enroll.evaluation.vendor_server import LABEL, VendorServer
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName
from enroll.keystore.base import Protection
from enroll.proves import Proves, proves
from enroll.revocation.lists import Revocation
from enroll.revocation.record import RevocationRecord, RevocationRecords, RevocationState
from enroll.trust import VerifiedCertificate
from enroll.vendor.case import ServiceCase
from enroll.vendor.pkcs12 import read_pkcs12
from enroll.vendor.ticket import TICKET_LIMIT, read_ticket
from enroll.vendor.vendor_wide import KeyInToken, KeyToImport, import_vendor_wide
from tests.support.agent_process import Scanner as ScannerWithAgent
from tests.support.agent_process import new_scanner, running_agent
from tests.support.enrolling import Scanner
from tests.support.flow_servers.vendor import accept_ticket, vendor_service
from tests.support.openssl import needs_openssl
from tests.support.pki import Content, HospitalCa, name, new_key
from tests.support.raw_dicom import instance, part10, text
from tests.support.softhsm import PIN, SoftHsm, softhsm_of_this_process
from tests.unit.test_service_ticket import HOSTILE

pytestmark = needs_openssl

Service = tuple[VendorCa, VendorServer, Scanner]
FACTORY, SIGNER = IdentityName.IDEVID, IdentityName.VENDOR
PASSPHRASE = b"the passphrase of the vendor"
IMAGE = part10(
    instance(
        text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        text(0x00080070, "LO", "Evaluation Scanners"),
        text(0x00181000, "LO", "SN0001"),
    )
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with vendor_service(tmp_path) as running:
        yield running


def issued(scanner: Scanner, identity: IdentityName) -> Generation:
    """One run of the enroller, as after a restart."""
    with Enroller(scanner.restarted().context) as enroller:
        answer = enroller.enroll(identity, FlowName.VENDOR)
    assert isinstance(answer, Generation)
    return answer


def openssl(*arguments: str | Path) -> str:
    return subprocess.run(
        ["openssl", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=30
    ).stdout


def certificate_file(scanner: Scanner, identity: IdentityName) -> Path:
    return scanner.identities.directory(identity) / "current" / "certificate.pem"


def test_a_factory_identity_has_no_end_and_names_its_hardware_module(service: Service) -> None:
    """IEEE 802.1AR, read by openssl."""
    ca, _, scanner = service
    accept_ticket(scanner, ca, organization="St Elsewhere")
    generation = issued(scanner, FACTORY)

    assert scanner.matching_pair(FACTORY) == generation
    said = openssl("x509", "-in", certificate_file(scanner, FACTORY), "-noout", "-text")
    assert "Not After : Dec 31 23:59:59 9999 GMT" in said
    assert "serialNumber = CT-000123" in said
    assert "O = Evaluation Scanners" in said
    assert "St Elsewhere" not in said  # the owner changes, the factory identity stays
    assert "othername: 1.3.6.1.5.5.7.8.4" in said
    chain = certificate_file(scanner, FACTORY).with_name("chain.pem")
    verified = openssl("verify", "-CAfile", ca.anchor_file, "-untrusted", chain, certificate_file(scanner, FACTORY))
    assert verified.endswith(": OK\n")


def test_what_signs_names_the_device_and_the_customer_of_the_ticket(service: Service) -> None:
    ca, _, scanner = service
    accept_ticket(scanner, ca, organization="St Elsewhere", unit="Radiology")
    generation = issued(scanner, SIGNER)

    said = openssl("x509", "-in", certificate_file(scanner, SIGNER), "-noout", "-subject", "-ext", "extendedKeyUsage")
    assert "O = St Elsewhere, OU = Radiology" in said
    assert "serialNumber = CT-000123" in said
    assert "1.3.6.1.5.5.7.3.36" in said
    assert proves(generation.certificate) is Proves.DEVICE


def test_the_factory_identity_renews_what_signs_without_a_ticket(service: Service) -> None:
    """RFC 7030 4.2.2: the names stay to the letter, those of the customer included."""
    ca, _, scanner = service
    accept_ticket(scanner, ca, organization="St Elsewhere")
    issued(scanner, FACTORY)
    first, second = issued(scanner, SIGNER), issued(scanner, SIGNER)

    assert second.certificate.subject == first.certificate.subject
    assert second.certificate.public_key() != first.certificate.public_key()


def test_the_factory_identity_is_never_renewed_by_itself(service: Service) -> None:
    ca, _, scanner = service
    accept_ticket(scanner, ca)
    factory = issued(scanner, FACTORY)

    with pytest.raises(ConfigurationError) as refused:
        issued(scanner, FACTORY)
    assert refused.value.code == "ticket-missing"
    assert scanner.matching_pair(FACTORY) == factory

    accept_ticket(scanner, ca)  # the TPM was replaced, say
    assert issued(scanner, FACTORY).number == 2


def test_without_a_ticket_nobody_is_asked(service: Service) -> None:
    _, running, scanner = service
    running.stop()

    for identity in (FACTORY, SIGNER):
        with pytest.raises(ConfigurationError) as refused:
            issued(scanner, identity)
        assert refused.value.code == "ticket-missing"
    assert scanner.stores.list() == ()


def test_a_ticket_that_expires_while_it_waits_is_not_sent(service: Service) -> None:
    ca, _, scanner = service
    case = ServiceCase(scanner.settings.state_directory, scanner.files)
    ticket = ca.make_ticket("CT-000123", case.nonce(), [FACTORY], timedelta(seconds=1))
    case.accept(ticket, read_ticket(ticket))
    scanner.clock.sleep(1.5)

    with pytest.raises(EnrollmentRefused) as refused:
        issued(scanner, FACTORY)
    assert refused.value.code == "ticket-expired"


def imported(scanner: Scanner, ca: VendorCa, folder: Path) -> Generation:
    """A certificate for all devices."""
    path = folder / "wide.p12"
    path.write_bytes(ca.make_vendor_wide(PASSPHRASE))
    found = read_pkcs12(path, PASSPHRASE, scanner.files)
    return import_vendor_wide(KeyToImport(found.key), (found.certificate, *found.others), scanner.restarted().context)


def test_what_was_imported_after_a_ticket_is_not_asked_for_with_the_ticket(service: Service, tmp_path: Path) -> None:
    ca, _, scanner = service
    accept_ticket(scanner, ca)
    issued(scanner, SIGNER)
    generation = imported(scanner, ca, tmp_path)

    with pytest.raises(ConfigurationError, match="imported"):
        issued(scanner, SIGNER)
    assert scanner.matching_pair(SIGNER) == generation

    accept_ticket(scanner, ca)
    assert proves(issued(scanner, SIGNER).certificate) is Proves.DEVICE


def test_a_ticket_that_came_before_the_clock_was_set_back_is_spent_all_the_same(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, _, scanner = service
    accept_ticket(scanner, ca)
    generation = issued(scanner, FACTORY)
    accept_ticket(scanner, ca)
    monkeypatch.setattr(type(scanner.clock), "now", lambda _: generation.committed_at - timedelta(minutes=4))

    assert issued(scanner, FACTORY).number == 2
    with pytest.raises(ConfigurationError) as refused:
        issued(scanner, FACTORY)
    assert refused.value.code == "ticket-missing"


def asked(ca: VendorCa, scanner: Scanner, ticket: str, **changes: str) -> x509.Certificate:
    """Ask the vendor directly, as a device would that has been tampered with."""
    said = {"serial_number": "CT-000123", "nonce": read_ticket(ticket).nonce, **changes}
    device = replace(scanner.settings.device, serial_number=said["serial_number"])
    request = CertificateRequest.for_device(device, Usage.DEVICE)
    return ca.issue(signed_for(scanner, request, said["nonce"]), ticket)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"serial_number": "CT-000999"}, "ticket-other-device"),
        ({"nonce": "H2Q7H76H427B76ZZ"}, "ticket-other-nonce"),
        ({"nonce": ""}, "request-refused"),
    ],
)
def test_the_service_believes_no_device_that_the_ticket_is_not_for(
    service: Service, changes: dict[str, str], code: str
) -> None:
    ca, _, scanner = service
    ticket = accept_ticket(scanner, ca)

    with pytest.raises(EnrollmentRefused) as refused:
        asked(ca, scanner, ticket, **changes)
    assert refused.value.code == code


def signed_for(
    scanner: Scanner, request: CertificateRequest, nonce: str = "", **more: Any
) -> x509.CertificateSigningRequest:
    """A request with a key of its own, as a device makes it that has been tampered with."""
    uri = scanner.stores.generate(
        StoreName.SOFTWARE, f"k{len(scanner.stores.list())}", IdentitySettings().key_algorithm
    )
    return build(scanner.stores.load(uri), request, challenge_password=nonce, **more)


class WithOtherHardware(CertificateRequest):
    """A request whose hardwareModuleName is that of another device."""

    @property
    def alternative_names(self) -> tuple[x509.GeneralName, ...]:
        """As above."""
        return (hardware_module_name(self.hardware_type, "CT-000999"),)


@pytest.mark.parametrize(
    "other",
    [
        WithOtherHardware("Example CT CT-000123", "CT-000123", "1.3.6.1.4.1.32473.1.2", Usage.DEVICE),
        CertificateRequest("Example CT CT-000999", "CT-000123", "1.3.6.1.4.1.32473.1.2", Usage.DEVICE),
    ],
    ids=["hardware module", "common name"],
)
def test_the_service_puts_no_other_device_into_a_certificate(service: Service, other: CertificateRequest) -> None:
    """The ticket speaks of its `sub`; nothing else in the request may name a device."""
    ca, _, scanner = service
    ticket = accept_ticket(scanner, ca)

    with pytest.raises(EnrollmentRefused) as refused:
        ca.issue(signed_for(scanner, other, read_ticket(ticket).nonce), ticket)
    assert refused.value.code == "request-refused"


def test_a_factory_identity_renews_only_what_the_device_has(service: Service) -> None:
    """A ticket for `idevid` alone brings nothing that signs; and the names stay to the letter (RFC 7030 4.2.2)."""
    ca, _, scanner = service
    accept_ticket(scanner, ca)
    factory = issued(scanner, FACTORY).certificate
    right = CertificateRequest.for_device(scanner.settings.device, Usage.SIGNING)
    with pytest.raises(EnrollmentRefused, match="no such certificate"):
        ca.renew(signed_for(scanner, right, renews=factory), factory)

    signer = issued(scanner, SIGNER).certificate
    ca.renew(signed_for(scanner, right, renews=signer), factory)
    with pytest.raises(EnrollmentRefused, match="no such certificate"):
        ca.renew(signed_for(scanner, replace(right, hardware_type=""), owners_names=list(signer.subject)[:1]), factory)


def test_the_service_refuses_a_second_use_with_another_key(service: Service) -> None:
    ca, _, scanner = service
    ticket = accept_ticket(scanner, ca)
    asked(ca, scanner, ticket)

    with pytest.raises(EnrollmentRefused) as refused:
        issued(scanner, FACTORY)
    assert "used already" in str(refused.value)
    assert refused.value.who_must_act == "vendor service"


def test_of_several_who_come_at_once_with_a_ticket_one_gets_something(service: Service) -> None:
    ca, _, scanner = service
    ticket = accept_ticket(scanner, ca)
    right = CertificateRequest.for_device(scanner.settings.device, Usage.DEVICE)
    requests = [signed_for(scanner, right, read_ticket(ticket).nonce) for _ in range(8)]

    def ask(desk: VendorCa, request: x509.CertificateSigningRequest) -> str:
        try:
            return desk.issue(request, ticket).subject.rfc4514_string()
        except EnrollmentRefused as error:
            return error.code

    started_anew = VendorCa.create_or_open(ca.directory, scanner.clock)
    for desk in (ca, started_anew):
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(partial(ask, desk), requests)).count("ticket-used") == 7


def test_an_answer_that_was_lost_is_given_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same key, the same certificate: a crash costs no second ticket."""
    ca, _, scanner = service
    accept_ticket(scanner, ca)
    given = []

    def lost(request: x509.CertificateSigningRequest, ticket: str) -> x509.Certificate:
        given.append(VendorCa.issue(ca, request, ticket))
        raise ScansealError("the connection ended")

    with monkeypatch.context() as faults:
        faults.setattr(ca, "issue", lost)
        with pytest.raises(ScansealError):
            issued(scanner, FACTORY)

    assert [issued(scanner, FACTORY).certificate] == given


@pytest.mark.parametrize("ticket", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_ticket_reaches_no_service_and_convinces_none(
    service: Service, tmp_path: Path, ticket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ca, running, scanner = service
    configuration = configured(tmp_path, running.url, ca)
    file = tmp_path / "ticket.jwt"
    file.write_text(ticket if ticket.strip() == ticket else "x", "utf-8")

    code = run(["enroll", "vendor", "issue", "--ticket", str(file), "--config", str(configuration)])
    said = capsys.readouterr().err
    too_long = len(ticket) > TICKET_LIMIT
    assert code == (exits.CONFIGURATION if too_long else exits.NOT_PERMITTED)
    assert ("at most 4096 characters" if too_long else "To act: vendor service") in said
    assert not (tmp_path / "state" / "identities" / "idevid" / "current").exists()

    with pytest.raises(EnrollmentRefused):
        ca.issue(x509.load_pem_x509_csr(_any_request(scanner)), ticket)


def _any_request(scanner: Scanner) -> bytes:
    uri = scanner.stores.generate(StoreName.SOFTWARE, "any", IdentitySettings().key_algorithm)
    request = CertificateRequest.for_device(scanner.settings.device, Usage.DEVICE)
    return build(scanner.stores.load(uri), request).public_bytes(serialization.Encoding.PEM)


def configured(folder: Path, url: str, ca: VendorCa, more: str = "") -> Path:
    path = folder / "scanseal.toml"
    path.write_text(
        f'state_directory = "{folder}/state"\n'
        '[device]\nserial_number = "CT-000123"\nmodel = "Example CT"\nhardware_type = "1.3.6.1.4.1.32473.1.2"\n'
        f'[keystore.software]\npassphrase_file = "{folder}/passphrase"\n'
        f'[vendor]\nurl = "{url}"\nlabel = "{LABEL}"\nanchor_file = "{ca.anchor_file}"\n'
        f'[identity.vendor]\nkey_algorithm = "rsa-2048"\n{more}',
        "utf-8",
    )
    return path


def test_the_whole_way_by_the_commands(service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """request, ticket, issue; run again after all is done, it changes nothing. Neither nonce nor ticket is logged."""
    ca, running, _ = service
    config = ["--config", str(configured(tmp_path, running.url, ca))]
    assert run(["enroll", "vendor", "request", "--json", *config]) == exits.OK
    shown = json.loads(capsys.readouterr().out)

    ticket = tmp_path / "ticket.jwt"
    desk = ["ticket", "--directory", ca.directory, "--serial-number", shown["serial_number"], "--output", ticket]
    made = CliRunner().invoke(evaluation_vendor, [str(word) for word in desk], input=shown["nonce"].lower() + "\n")
    assert made.exit_code == 0, made.output

    issue = ["enroll", "vendor", "issue", "--ticket", str(ticket), "--json", *config]
    assert run([*issue, "--dry-run"]) == exits.OK
    plan = capsys.readouterr().out
    assert f"{running.url}/.well-known/est/{LABEL}/simpleenroll" in plan
    assert ticket.read_text("ascii").strip() not in plan

    for _ in range(2):
        assert run(issue) == exits.OK
        output = capsys.readouterr()
        records = json.loads(output.out)["identities"]
        assert [(r["identity"], r["generation"], r["proves"]) for r in records] == [
            ("idevid", 1, "device"),
            ("vendor", 1, "device"),
        ]
        assert shown["nonce"].replace("-", "") not in output.out + output.err
        assert "The key of the factory identity is in software" in output.err

    assert run(["renew", "--force", "--json", *config]) == exits.OK
    renewed = {r["identity"]: r for r in json.loads(capsys.readouterr().out)["identities"]}
    assert renewed["vendor"]["generation"] == 2
    assert "idevid" not in renewed

    run(["status", *config])
    status = capsys.readouterr().out
    assert "never renewed by itself" in status
    assert "signs as   signing" in status
    run(["check", *config])
    assert "never renewed by itself" in capsys.readouterr().out


def test_what_a_ticket_has_not_brought_is_asked_for_again_by_the_timer(service: Service, tmp_path: Path) -> None:
    ca, running, scanner = service
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"https://localhost:{nobody.getsockname()[1]}"
        config = ["--config", str(configured(tmp_path, away, ca))]
        accept_ticket(scanner, ca)
        assert run(["enroll", "vendor", "issue", *config]) == exits.UNAVAILABLE

    configured(tmp_path, running.url, ca)
    assert run(["renew", *config]) == exits.OK
    for identity in (FACTORY, IdentityName.VENDOR):
        assert scanner.identities.current(identity) is not None
        assert scanner.identities.wanted(identity).read() is None


def test_one_identity_of_a_ticket_can_be_asked_for_by_its_name(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca, running, scanner = service
    config = ["--config", str(configured(tmp_path, running.url, ca))]
    nonce, ticket = ServiceCase(scanner.settings.state_directory, scanner.files).nonce(), tmp_path / "ticket.jwt"
    desk = ["ticket", "--directory", ca.directory, "--serial-number", "CT-000123", "--output", ticket]
    words = [str(word) for word in (*desk, "--identity", "vendor")]
    made = CliRunner().invoke(evaluation_vendor, words, input=nonce)
    assert made.exit_code == 0, made.output

    issue = ["enroll", "vendor", "issue", "--ticket", str(ticket), *config]
    assert run([*issue, "--identity", "vendor"]) == exits.OK
    assert run([*issue, "--identity", "idevid"]) == exits.CONFIGURATION
    assert "no service ticket for the identity idevid" in capsys.readouterr().err
    assert scanner.identities.current(FACTORY) is None


def test_the_same_by_requests_that_a_person_carries(service: Service, tmp_path: Path) -> None:
    """The first without a proof, believed by a person; then the factory identity proves who asks."""
    ca, running, scanner = service
    config = ["--config", str(configured(tmp_path, running.url, ca))]
    for identity, believed in (("idevid", ["--unproved"]), ("vendor", [])):
        carried, back = tmp_path / f"{identity}.txt", tmp_path / f"{identity}.pem"
        assert (
            run(["enroll", "offline", "export", "--identity", identity, "--output", str(carried), *config]) == exits.OK
        )
        desk = ["answer", "--directory", str(ca.directory), str(carried), "--output", str(back)]
        refused = CliRunner().invoke(evaluation_vendor, desk)
        assert (refused.exit_code == 0) == (not believed)
        for _ in range(2):  # the same answer again
            made = CliRunner().invoke(evaluation_vendor, [*desk, *believed, "--organization", "St Elsewhere"])
            assert made.exit_code == 0, made.output
        assert run(["enroll", "offline", "import", str(back), *config]) == exits.OK

    assert scanner.identities.current(FACTORY) is not None
    signer = scanner.identities.current(SIGNER)
    assert signer is not None
    assert signer.flow == "offline"


def test_a_scanner_that_has_an_owner_already_can_still_ask_for_its_factory_identity(
    service: Service, tmp_path: Path
) -> None:
    """The owner's identity signs the request, which says nothing to the vendor; so a person has to believe it."""
    ca, running, scanner = service
    key = new_key()
    device = Content(subject=name(SERIAL_NUMBER="CT-000123"), extended_usage=(ExtendedKeyUsageOID.CLIENT_AUTH,))
    owned = VerifiedCertificate(HospitalCa().issue(key.public_key(), device), (), None)
    uri = scanner.stores.import_key(StoreName.SOFTWARE, "device-1", key)
    said: dict[str, Any] = {"protection": Protection.SOFTWARE, "flow": "est", "now": scanner.clock.now()}
    scanner.identities.commit(IdentityName.DEVICE, owned, uri, **said)

    config = ["--config", str(configured(tmp_path, running.url, ca))]
    carried, back = tmp_path / "request.txt", tmp_path / "answer.pem"
    assert run(["enroll", "offline", "export", "--identity", "idevid", "--output", str(carried), *config]) == exits.OK
    desk = ["answer", "--directory", str(ca.directory), str(carried), "--output", str(back)]
    assert CliRunner().invoke(evaluation_vendor, desk).exit_code != 0
    made = CliRunner().invoke(evaluation_vendor, [*desk, "--unproved"])
    assert made.exit_code == 0, made.output
    assert run(["enroll", "offline", "import", str(back), *config]) == exits.OK


def test_a_revoked_factory_identity_renews_nothing(service: Service) -> None:
    ca, _, scanner = service
    accept_ticket(scanner, ca)
    factory, signer = issued(scanner, FACTORY), issued(scanner, SIGNER)
    now = scanner.clock.now()
    known = RevocationRecord(factory.number, serial_text(factory.certificate), now)
    revoked = replace(known, state=RevocationState.REVOKED, revocation=Revocation(now, "keyCompromise"))
    RevocationRecords(scanner.identities).write(factory, revoked)

    with pytest.raises(StateError, match="revoked") as refused:
        issued(scanner, SIGNER)
    assert refused.value.code == "certificate-revoked"
    assert scanner.matching_pair(SIGNER) == signer


@pytest.fixture
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm_of_this_process(tmp_path_factory.getbasetemp())


def in_token(scanner: Scanner, hsm: SoftHsm) -> Scanner:
    """The same scanner with the vendor's keys in SoftHSM."""
    keystore = replace(
        scanner.settings.keystore,
        pkcs11=replace(
            scanner.settings.keystore.pkcs11, module=hsm.proxy, token="through-proxy", pin_file=hsm.pin_file
        ),
    )
    wanted = replace(
        scanner.settings.identity,
        idevid=IdentitySettings(key_store=StoreName.PKCS11),
        vendor=VendorIdentitySettings(key_store=StoreName.PKCS11),
    )
    return scanner.restarted(keystore=keystore, identity=wanted)


def test_the_keys_may_live_in_a_token(service: Service, hsm: SoftHsm) -> None:
    """The factory identity renews what signs, over TLS with a key that stays in its token."""
    ca, _, plain = service
    scanner = in_token(plain, hsm)
    accept_ticket(scanner, ca)

    generations = [issued(scanner, identity) for identity in (FACTORY, SIGNER, SIGNER)]
    assert [generation.number for generation in generations] == [1, 1, 2]
    assert all(generation.key_uri.startswith("pkcs11:") for generation in generations)
    assert scanner.matching_pair(FACTORY) == generations[0]
    assert scanner.matching_pair(SIGNER) == generations[2]


def made_by_openssl(ca: VendorCa, folder: Path) -> tuple[Path, Path, Path]:
    """A vendor-wide key and certificate as openssl hands them out: key, certificates, PKCS#12."""
    (folder / "pass").write_bytes(PASSPHRASE)
    (folder / "pass").chmod(0o600)
    (folder / "made.p12").write_bytes(ca.make_vendor_wide(PASSPHRASE))
    opened: list[str | Path] = ["pkcs12", "-in", folder / "made.p12", "-passin", f"file:{folder}/pass", "-nodes"]
    openssl(*opened, "-nocerts", "-out", folder / "wide.key")
    openssl(*opened, "-nokeys", "-out", folder / "wide.pem")
    parts: list[str | Path] = [
        "-inkey",
        folder / "wide.key",
        "-in",
        folder / "wide.pem",
        "-passout",
        f"file:{folder}/pass",
    ]
    openssl("pkcs12", "-export", *parts, "-out", folder / "wide.p12")
    return folder / "wide.key", folder / "wide.pem", folder / "wide.p12"


def test_an_object_of_a_token_is_used_where_it_is_and_never_removed(
    service: Service, hsm: SoftHsm, tmp_path: Path
) -> None:
    ca, _, plain = service
    scanner = in_token(plain, hsm)
    uri = _import_by_softhsm(ca, tmp_path, hsm, "4711")
    certificates = x509.load_pem_x509_certificates((tmp_path / "wide.pem").read_bytes())

    generation = import_vendor_wide(KeyInToken(uri), certificates, scanner.context)
    assert scanner.matching_pair(SIGNER) == generation
    assert generation.protection == "software"  # it was made outside: no token can say that it never left
    assert import_vendor_wide(KeyInToken(uri), certificates, scanner.context) == generation

    accept_ticket(scanner, ca)
    for _ in range(3):
        accept_ticket(scanner, ca)
        issued(scanner, SIGNER)
    scanner.stores.load(uri)


def _import_by_softhsm(ca: VendorCa, folder: Path, hsm: SoftHsm, identifier: str) -> str:
    key, _, _ = made_by_openssl(ca, folder)
    pkcs8 = folder / "wide.pkcs8"
    openssl("pkcs8", "-topk8", "-nocrypt", "-in", key, "-out", pkcs8)
    softhsm = ["softhsm2-util", "--import", pkcs8, "--token", "through-proxy", "--label", "vendor-wide"]
    command = [*map(str, softhsm), "--id", identifier, "--pin", PIN]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return f"pkcs11:token=through-proxy;object=vendor-wide;id=%{identifier[:2]}%{identifier[2:]};type=private"


@pytest.fixture(scope="module")
def with_vendor_wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScannerWithAgent, dict[str, Any]]]:
    """It signs with a certificate for all devices, which openssl packed; an owner's certificate lies beside it."""
    folder = tmp_path_factory.mktemp("vendor-wide")
    with new_scanner(folder) as scanner:
        ca = VendorCa.create_or_open(folder / "vendor", SystemClock())
        _, _, packed = made_by_openssl(ca, folder)
        tables = {"vendor": {"anchor_file": str(ca.anchor_file)}, "signing": {"identity": "vendor"}}
        config = str(scanner.configure(**tables))
        options = ["--passphrase-file", str(folder / "pass"), "--config", config]
        assert run(["enroll", "vendor", "import", str(packed), *options]) == exits.OK
        scanner.enroll(IdentityName.SIGNING)
        yield scanner, tables


def test_everything_says_that_a_vendor_wide_certificate_proves_the_vendor_only(
    with_vendor_wide: tuple[ScannerWithAgent, dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scanner, tables = with_vendor_wide
    config = ["--config", str(scanner.directory / "scanseal.toml")]
    signed = tmp_path / "signed.dcm"
    with running_agent(scanner, **tables) as agent:
        with SigningClient(agent.socket) as client:
            status = client.status()
            result = io.BytesIO()
            client.sign_instance(IMAGE, result, role="acquisition")
            splice = client.splice_instance(IMAGE, role="acquisition")
            digest = client.sign_digest(bytes(32), algorithm="sha256", role="acquisition")
        signed.write_bytes(result.getvalue())
        run(["status", *config])
        said = capsys.readouterr().out
        run(["check", *config])
        checked = capsys.readouterr().out

    assert tuple(splice.warnings) == digest.warnings == ("proves-vendor-only",)
    assert status["signs_as"]["acquisition"] == "vendor"
    assert status["identities"]["vendor"]["proves"] == "vendor"
    assert status["identities"]["signing"]["proves"] == "device"  # side by side
    lines = {line.split()[0]: line for line in said.splitlines()}
    assert "proves the vendor only" in lines["vendor"]
    assert "proves the vendor only" in lines["signs"]
    assert "proves the vendor only" in checked
    assert {(line["identity"], line["proves"]) for line in scanner.audit("signature")} == {("vendor", "vendor")}

    root, issuing = (str(scanner.directory / "vendor" / f"{name}.pem") for name in ("root", "issuing"))
    assert run(["verify", str(signed), "--anchor", root, "--intermediate", issuing]) != exits.OK
    verdict = capsys.readouterr().out
    assert "VALID_VENDOR_ONLY" in verdict
    assert "proves the vendor only" in verdict


def test_neither_identity_takes_the_place_of_the_other(
    with_vendor_wide: tuple[ScannerWithAgent, dict[str, Any]],
) -> None:
    scanner, tables = with_vendor_wide
    for identity in ("signing", "vendor"):
        with running_agent(scanner, **{**tables, "signing": {"identity": identity}}) as agent:
            with SigningClient(agent.socket) as client:
                status = client.status()
            assert status["signs_as"]["acquisition"] == identity
            assert status["identities"][identity]["signs_until"]
            other = "vendor" if identity == "signing" else "signing"
            assert status["identities"][other]["signs_until"] is None


def test_without_the_identity_that_is_configured_nothing_is_signed(tmp_path: Path) -> None:
    with new_scanner(tmp_path) as scanner:
        scanner.enroll(IdentityName.SIGNING)
        with running_agent(scanner, signing={"identity": "vendor"}) as agent, SigningClient(agent.socket) as client:
            status = client.status()

    assert status["roles"]["acquisition"] == "not-enrolled"
