"""The offline exchange with openssl as the CA, and its commands as a person types them.

What cannot be run here is `certreq` of Windows; it reads the same PKCS#10 block and answers with the same PKCS#7.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.cli import exits
from agent.cli.main import run
from enroll import signed_data
from enroll.algorithms import KeyAlgorithm
from enroll.certificates import pem
from enroll.clock import SystemClock
from enroll.config import IdentitySettings, Pkcs11StoreSettings, StoreName
from enroll.csr import CertificateRequest, Usage
from enroll.identity import IdentityName
from tests.support.agent_process import Scanner, new_scanner
from tests.support.by_hand import DEVICE, SIGNING, ByHand, offline_settings
from tests.support.clocks import SteppedClock
from tests.support.openssl import needs_openssl, openssl
from tests.support.pki import DEVICE as SCANNER
from tests.support.pki import Content, HospitalCa, new_key
from tests.support.softhsm import softhsm_of_this_process

pytestmark = needs_openssl

VENDOR = HospitalCa("Vendor CA")
OPENSSL_CA = """
[ca]
default_ca = hospital
[hospital]
new_certs_dir = {folder}
database = {folder}/index.txt
serial = {folder}/serial
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
default_days = 365
policy = anything
copy_extensions = copy
unique_subject = no
[anything]
commonName = supplied
serialNumber = optional
organizationalUnitName = optional
"""


class OpensslCa:
    """A CA that is nothing but openssl and files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.certificate = folder, folder / "ca.pem"
        self.configuration = folder / "ca.cnf"
        self.configuration.write_text(OPENSSL_CA.format(folder=folder))
        (folder / "index.txt").write_text("")
        (folder / "serial").write_text("1000\n")
        self.make("ca")

    def make(self, name: str, *, below: str = "") -> Path:
        """A CA certificate: the root, or one below it."""
        key = self.folder / f"{name}.key"
        new = ("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key)
        subject = ("-subj", f"/CN=Hospital {name}")
        extensions = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        certificate = self.folder / f"{name}.pem"
        if not below:
            openssl(*new, *subject, "-x509", "-days", "3650", *extensions, "-out", certificate)
            return certificate
        request = self.folder / f"{name}.csr"
        openssl(*new, *subject, "-addext", "basicConstraints=critical,CA:TRUE", *extensions, "-out", request)
        self.sign(request, certificate, below)
        return certificate

    def sign(self, request: Path, answer: Path, by: str = "ca") -> None:
        """`openssl x509 -req`, as the summary of a request tells."""
        ca = ("-CA", self.folder / f"{by}.pem", "-CAkey", self.folder / f"{by}.key", "-CAcreateserial")
        openssl("x509", "-req", "-in", request, "-copy_extensions", "copy", "-days", "365", *ca, "-out", answer)

    def grant(self, request: Path, answer: Path) -> None:
        """`openssl ca`, as the summary of a request tells."""
        openssl("ca", "-batch", "-config", self.configuration, "-in", request, "-out", answer, "-notext")


@pytest.fixture
def ca(tmp_path: Path) -> OpensslCa:
    return OpensslCa(tmp_path / "ca")


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        yield scanner


@pytest.fixture
def configured(scanner: Scanner, ca: OpensslCa) -> list[str]:
    """What every command needs."""
    tables = {"offline": {"anchor_file": str(ca.certificate)}, "identity.signing": {"key_algorithm": "rsa-2048"}}
    return ["--config", str(scanner.configure(**tables))]


def offline(*arguments: str | Path) -> int:
    return run(["enroll", "offline", *map(str, arguments)])


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def exported(folder: Path, configured: list[str], *arguments: str) -> Path:
    """The file of a request for the signing identity."""
    file = folder / "request.txt"
    assert offline("export", "--identity", "signing", "--output", file, *arguments, *configured) == exits.OK
    return file


@pytest.mark.parametrize("command", ["sign", "grant"])
def test_from_export_to_a_certificate_in_use(
    command: str, tmp_path: Path, scanner: Scanner, ca: OpensslCa, configured: list[str]
) -> None:
    request, answer = exported(tmp_path, configured), tmp_path / "answer.pem"
    getattr(ca, command)(request, answer)

    assert offline("import", answer, *configured) == exits.OK

    generation = scanner.identities.current(SIGNING)
    assert generation is not None
    assert generation.flow == "offline"


def test_both_usual_identities_go_and_come_together(
    tmp_path: Path, scanner: Scanner, ca: OpensslCa, configured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    assert offline("export", "--output", stick, "--json", *configured) == exits.OK
    files = [Path(request["file"]) for request in told(capsys)["requests"]]
    assert {file.parent for file in files} == {stick}

    for file in files:
        ca.sign(file, file.with_suffix(".cer"))
    assert offline("import", *sorted(stick.glob("*.cer")), *configured) == exits.OK

    assert all(scanner.identities.current(name) for name in (DEVICE, SIGNING))


def test_the_answer_may_be_pkcs7_in_der_or_pem(
    tmp_path: Path, scanner: Scanner, ca: OpensslCa, configured: list[str]
) -> None:
    for form in ("DER", "PEM"):
        request, answer, message = exported(tmp_path, configured), tmp_path / "answer.pem", tmp_path / f"answer.{form}"
        ca.sign(request, answer)
        both = ("-certfile", answer, "-certfile", ca.certificate)
        openssl("crl2pkcs7", "-nocrl", *both, "-outform", form, "-out", message)

        assert offline("import", message, *configured) == exits.OK

    current = scanner.identities.current(SIGNING)
    assert current is not None
    assert current.number == 2


def test_one_certificate_in_der_with_the_issuing_ca_in_a_file_of_its_own(
    tmp_path: Path, ca: OpensslCa, configured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    issuing = ca.make("issuing", below="ca")
    request, answer, in_der = exported(tmp_path, configured), tmp_path / "answer.pem", tmp_path / "answer.cer"
    ca.sign(request, answer, "issuing")
    openssl("x509", "-in", answer, "-outform", "DER", "-out", in_der)
    capsys.readouterr()

    assert offline("import", in_der, *configured) == exits.UNAVAILABLE
    assert "CN=Hospital issuing is missing" in capsys.readouterr().err
    assert offline("import", in_der, issuing, *configured) == exits.OK


def test_openssl_reads_the_request_out_of_the_file(tmp_path: Path, configured: list[str]) -> None:
    file = exported(tmp_path, configured, "--reason", "the scanner was moved")

    text = openssl("req", "-in", file, "-noout", "-text", "-verify")

    assert "verify OK" in text
    assert "the scanner was moved" in file.read_text("ascii")


def test_openssl_verifies_the_proof_with_the_commands_in_the_file(tmp_path: Path) -> None:
    by_hand = ByHand(tmp_path, HospitalCa(), VENDOR, SystemClock())
    by_hand.with_identity(IdentityName.IDEVID, VENDOR)
    (tmp_path / "request.txt").write_bytes(by_hand.export(why="a new scanner")[1])
    (tmp_path / "anchor.pem").write_bytes(pem([VENDOR.certificate]))
    (tmp_path / "other.pem").write_bytes(pem([HospitalCa("Vendor CA").certificate]))
    text = (tmp_path / "request.txt").read_text("ascii").replace("\\\n", " ")
    (command,) = re.findall(r"openssl (cms .*)", text)

    def verify(anchor: str, *, succeeds: bool) -> str:
        files = {"anchor.pem": anchor, "request.txt": "request.txt", "device.pem": "device.pem"}
        words = [tmp_path / files[word] if word in files else word for word in command.split()]
        return openssl(*words, succeeds=succeeds)

    answer = verify("anchor.pem", succeeds=True)
    verify("other.pem", succeeds=False)

    assert "Verification successful" in answer
    statement = json.loads(answer[answer.index("{") : answer.index("}") + 1])
    assert statement["why"] == "a new scanner"
    assert statement["serial_number"] in openssl("x509", "-in", tmp_path / "device.pem", "-noout", "-subject")
    openssl("req", "-in", tmp_path / "request.txt", "-outform", "DER", "-out", tmp_path / "request.der")
    assert statement["request_sha256"] == hashlib.sha256((tmp_path / "request.der").read_bytes()).hexdigest()


def test_with_the_commands_in_the_file_a_key_for_images_proves_nothing(tmp_path: Path) -> None:
    """It signs the digests that programs on the scanner hand in; so -purpose sslclient."""
    key = new_key()
    message, anchor = tmp_path / "proof.der", tmp_path / "anchor.pem"
    now = SystemClock().now()
    anchor.write_bytes(pem([VENDOR.certificate]))
    for usage, succeeds in ((Usage.DEVICE, True), (Usage.SIGNING, False)):
        content = Content.asked(CertificateRequest.for_device(SCANNER, usage), now)
        message.write_bytes(signed_data.sign(b"{}", key, (VENDOR.issue(key.public_key(), content),)))

        command = ("cms", "-verify", "-inform", "DER", "-in", message, "-purpose", "sslclient", "-CAfile", anchor)
        openssl(*command, succeeds=succeeds)


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P_256, KeyAlgorithm.P_384, KeyAlgorithm.RSA_2048])
def test_keys_in_a_token_sign_the_request_and_the_proof(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, algorithm: KeyAlgorithm
) -> None:
    token = softhsm_of_this_process(tmp_path_factory.getbasetemp())
    plain = offline_settings(tmp_path)
    pkcs11 = Pkcs11StoreSettings(token.proxy, "through-proxy", token.pin_file)
    in_token = IdentitySettings(key_store=StoreName.PKCS11, key_algorithm=algorithm)
    by_hand = ByHand(
        tmp_path,
        HospitalCa(),
        VENDOR,
        SystemClock(),
        keystore=replace(plain.keystore, pkcs11=pkcs11),
        identity=replace(plain.identity, idevid=in_token, device=in_token),
    )
    by_hand.with_identity(IdentityName.IDEVID, VENDOR)

    file, anchor = tmp_path / "request.txt", tmp_path / "vendor.pem"
    file.write_bytes(by_hand.export(DEVICE)[1])
    (generation,) = by_hand.take_in(pem([by_hand.granted(file.read_bytes())]))

    openssl("cms", "-verify", "-inform", "PEM", "-in", file, "-purpose", "sslclient", "-CAfile", anchor)
    openssl("req", "-in", file, "-noout", "-verify")
    assert offline("show", file, "--anchor", anchor) == exits.OK
    assert generation.key_uri.startswith("pkcs11:")


def test_the_ca_operator_is_shown_what_is_asked_and_who_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand = ByHand(tmp_path, HospitalCa(), VENDOR, SystemClock())
    file, anchor = tmp_path / "request.txt", tmp_path / "vendor.pem"
    file.write_bytes(by_hand.export(why="a new scanner")[1])
    assert offline("show", file) == exits.OK
    assert "no: this device has no identity yet" in capsys.readouterr().out
    assert offline("show", file, "--anchor", anchor) == exits.CONFIGURATION

    by_hand.with_identity(IdentityName.IDEVID, VENDOR)
    file.write_bytes(by_hand.export(why="a new scanner")[1])
    capsys.readouterr()

    assert offline("show", file, "--anchor", anchor, "--json") == exits.OK
    shown = told(capsys)

    assert (shown["proved"], shown["why"], shown["identity"]) == (True, "a new scanner", "signing")


def test_requests_are_listed_and_cancelled(
    tmp_path: Path, configured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    exported(tmp_path, configured)
    capsys.readouterr()
    assert offline("list", "--json", *configured) == exits.OK
    (request,) = told(capsys)["requests"]
    assert request["state"] == "waiting"

    assert offline("cancel", request["number"], *configured) == exits.OK
    assert offline("cancel", request["number"], *configured) == exits.CONFIGURATION
    capsys.readouterr()
    assert offline("list", "--json", *configured) == exits.OK
    listed = told(capsys)

    assert listed["requests"] == []
    assert [(one["number"], one["state"]) for one in listed["ended"]] == [(request["number"], "cancelled")]


def test_a_file_that_was_lost_is_written_again(
    tmp_path: Path, ca: OpensslCa, configured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = exported(tmp_path, configured, "--json")
    number = told(capsys)["requests"][0]["number"]
    first = openssl("req", "-in", file, "-outform", "PEM")
    file.unlink()

    assert offline("export", "--again", number, "--output", file, *configured) == exits.OK

    assert openssl("req", "-in", file, "-outform", "PEM") == first


def test_what_would_be_written_is_shown_without_writing(
    tmp_path: Path, scanner: Scanner, configured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert offline("export", "--dry-run", "--output", tmp_path, "--json", *configured) == exits.OK

    assert [plan["identity"] for plan in told(capsys)["identities"]] == ["device", "signing"]
    assert offline("export", "--dry-run", "--output", tmp_path, *configured) == exits.OK
    said = capsys.readouterr().out
    assert "certificate request for device: serialNumber=" in said
    assert said.endswith("Nothing was written.\n")
    assert list(tmp_path.glob("scanseal-*")) == []
    assert not any(scanner.identities.requests_by_hand(name) for name in IdentityName)


def test_several_requests_need_a_folder(tmp_path: Path, configured: list[str]) -> None:
    assert offline("export", "--output", tmp_path / "one-file", *configured) == exits.USAGE


def test_a_place_that_cannot_be_written_is_said_to_be_one(tmp_path: Path, configured: list[str]) -> None:
    (tmp_path / "file").write_text("")

    code = offline("export", "--identity", "signing", "--output", tmp_path / "file" / "request.txt", *configured)

    assert code == exits.OUTPUT


def test_an_answer_that_is_not_there_is_said_not_to_be(tmp_path: Path, configured: list[str]) -> None:
    assert offline("import", tmp_path / "nothing.cer", *configured) == exits.NO_INPUT


# --- renewal


def renewed(configured: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    capsys.readouterr()
    code = run(["renew", "--force", "--json", *configured])
    (signing,) = [record for record in told(capsys)["identities"] if record["identity"] == "signing"]
    return code, signing


def test_near_its_end_people_hear_that_they_renew_it_by_hand(
    scanner: Scanner,
    ca: OpensslCa,
    configured: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = scanner.state.parent
    request, answer = exported(folder, configured), folder / "answer.pem"
    ca.sign(request, answer)
    assert offline("import", answer, *configured) == exits.OK
    current = scanner.identities.current(SIGNING)
    assert current is not None
    clock = SteppedClock(current.certificate.not_valid_after_utc - timedelta(hours=11))
    monkeypatch.setattr("agent.cli.renew.SystemClock", lambda: clock)
    run(["renew", "--unattended", *configured])
    exported(folder, configured)
    (number,) = scanner.identities.requests_by_hand(SIGNING)
    clock.advance(timedelta(hours=6))
    run(["renew", "--unattended", *configured])

    before, later = [text for text in caplog.messages if text.startswith("The certificate of signing")]
    assert "It is renewed by hand: run: scanseal enroll offline export --identity signing. To act:" in before
    assert f"It is renewed by hand: request {number} waits for its answer. To act: hospital IT." in later


def test_a_renewal_by_hand_waits_for_a_person_and_makes_no_request(
    tmp_path: Path, scanner: Scanner, ca: OpensslCa, configured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    request, answer = exported(tmp_path, configured), tmp_path / "answer.pem"
    ca.sign(request, answer)
    assert offline("import", answer, *configured) == exits.OK

    code, signing = renewed(configured, capsys)
    assert (code, signing["state"]) == (exits.TRY_LATER, "export-due")
    assert not {"next_attempt", "reason", "early_by", "window"} & set(signing)  # no timer tries
    assert scanner.identities.requests_by_hand(SIGNING) == ()

    exported(tmp_path, configured)
    code, signing = renewed(configured, capsys)
    assert (code, signing["state"]) == (exits.TRY_LATER, "answer-due")
    assert signing["requests"] == list(scanner.identities.requests_by_hand(SIGNING))
