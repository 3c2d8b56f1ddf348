"""What the guide for hospital IT tells them to type, typed: as root, with its paths, users and host names.

Windows is not there: openssl does what the commands do that the guide gives to AD CS.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from agent import config
from agent.cli import exits
from agent.cli.enroll import FLOWS
from enroll.errors import ConfigurationError
from enroll.statefile import StateFiles
from tests.support.acme import step_ca
from tests.support.dicom_samples import ct_slice
from tests.support.openssl import needs_openssl, openssl
from tests.support.swtpm import running_swtpm
from tests.support.unpacked_machine import ROOT, Typed, UnpackedMachine, unpacked_machine

GUIDE: Final = (ROOT / "docs/operations/hospital-it.md").read_text("utf-8")
WAYS: Final = ("EST", "step-ca", "AD CS")
LIMIT: Final = 10  # commands
EST_HOST, CA_HOST = "est.hospital.example", "ca.hospital.example"

_LOG = logging.getLogger(__name__)


def section(title: str) -> str:
    """The text below a headline, up to the next one of its level or above."""
    (found,) = re.findall(rf"^(##+) {re.escape(title)}\n(.*?)(?=^##+ [^\n]*\n|\Z)", GUIDE, re.DOTALL | re.MULTILINE)
    return str(found[1])


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def numbered(title: str) -> list[tuple[int, str, str]]:
    """The commands of a way: number, language, text."""
    found = re.findall(r"\*\*(\d+)\.\*\*(?:(?!```).)*?```(\w+)\n(.*?)```", section(title), re.DOTALL)
    return [(int(number), language, text) for number, language, text in found]


def vendors_configuration(*, tpm: bool) -> str:
    """What the guide says that the vendor has left in scanseal.toml."""
    plain, with_tpm = blocks(section("What you need"), "toml")
    if not tpm:
        return plain
    without_files, found = re.subn(r"\[keystore\.software\]\n.*?\n\n", "", plain, flags=re.DOTALL)
    assert found == 1
    # The vendor is an evaluation CA for loopback here, and its TPM a simulated one.
    here = with_tpm.replace("https://attestation.vendor.example", "https://localhost:9443")
    here = here.replace('"factory"', '"scanner"')
    here = here.replace("[keystore.tpm]\n", '[keystore.tpm]\ntcti = "swtpm:host=127.0.0.1,port=2321"\n')
    return without_files + here


def without_times(text: str) -> str:
    """In one line, so that the guide may break it anywhere."""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "TIME", " ".join(text.split()))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[UnpackedMachine]:
    folder = tmp_path / "machine"
    folder.mkdir()
    with unpacked_machine(folder, EST_HOST, CA_HOST) as running:
        running.put("/etc/scanseal/scanseal.toml", vendors_configuration(tpm=False))
        running.put("/etc/scanseal/key-passphrase", "correct horse battery staple", "scanseal", 0o400)
        running.put("/var/tmp/image.dcm", ct_slice(64, 64, "CT-000123"))
        typed(running, "install -d -o scanseal /media/usb")
        yield running


def typed(machine: UnpackedMachine, command: str, directory: str = "/root", code: int = exits.OK) -> Typed:
    ended = machine.type(command, directory)
    _LOG.info("%5.1f s  %s", ended.seconds, command.strip())
    assert ended.code == code, f"{command}\n{ended.said}"
    return ended


def followed(machine: UnpackedMachine, title: str, elsewhere: Callable[[], None] | None = None) -> str:
    """Type every command of a way; what they said. What another machine does is done by `elsewhere`."""
    said, seconds, commands = "", 0.0, numbered(title)
    for _, language, text in commands:
        if language == "sh":
            ended = typed(machine, text)
            said += ended.said
            seconds += ended.seconds
        else:
            assert elsewhere
            elsewhere()
    _LOG.info("%s: %d commands, %.1f s", title, len(commands), seconds)
    return said


def check_signed(machine: UnpackedMachine, said: str, flow: str) -> None:
    """The image is signed; the checks and the dry run said what comes; the timer has nothing to do."""
    assert " VALID:" in said
    assert f"Run: scanseal enroll {flow}" in said
    assert ("Nothing was written." if flow == "offline" else "Nothing was sent.") in said
    assert typed(machine, "runuser -u scanseal -- scanseal status").said.count(f"({flow})") == 2
    timer = typed(machine, "runuser -u scanseal -- scanseal renew --config /etc/scanseal/scanseal.toml")
    assert timer.said.count(": due by hand on " if flow == "offline" else ": due on ") == 2


def start_est_server(machine: UnpackedMachine, folder: Path) -> None:
    """The hospital's CA; its certificate is on the stick, and who is asked for the password knows it."""
    program = f"env PYTHONPATH={ROOT} {sys.executable} -m tests.support.est_of_hospital"
    machine.start(f"{program} {folder} {EST_HOST}", 443)
    openssl("x509", "-in", folder / "root.pem", "-outform", "DER", "-out", folder / "root.der")
    machine.put("/media/usb/hospital-ca.cer", (folder / "root.der").read_bytes())
    password = (folder / "password").read_text("ascii").strip()
    machine.put("/usr/local/bin/systemd-ask-password", f"#!/bin/sh\necho '{password}'\n", mode=0o755)


def start_tpm(machine: UnpackedMachine, folder: Path) -> Path:
    """The scanner's TPM, simulated; the certificate of its maker."""
    with running_swtpm(folder, manufactured=True) as tpm:
        state, maker = tpm.state, tpm.ek_issuer  # it goes on in the machine
    places = f"--tpmstate dir={state} --server type=tcp,port=2321 --ctrl type=tcp,port=2322"
    machine.start(f"swtpm socket --tpm2 {places} --flags not-need-init,startup-clear", 2321)
    return maker


def start_vendor(machine: UnpackedMachine, folder: Path, maker: Path) -> bytes:
    """The vendor's attestation CA, and what the vendor has left on the scanner; its root."""
    machine.start(
        f"scanseal evaluation-ca --directory {folder} --attestation-port 9443 --tpm-manufacturer {maker}", 9443
    )
    root = (folder / "attestation/root.pem").read_bytes()
    password = (folder / "attestation/password").read_bytes()
    machine.put("/etc/scanseal/scanseal.toml", vendors_configuration(tpm=True))
    machine.put("/etc/scanseal/attestation-ca.pem", root)
    machine.put("/etc/scanseal/attestation-password", password, "scanseal", 0o400)
    machine.put("/etc/scanseal/tpm-authorization", "a-long-random-value", "scanseal", 0o400)
    return root


def made_ca(machine: UnpackedMachine, vendor_root: bytes) -> str:
    """The CA that the guide makes for step-ca: a root and an issuing CA; what starts it."""
    preparation, start = blocks(section("A step-ca"), "sh")
    machine.put("/opt/ca/scanner.tpl", step_ca.guide()[1])
    machine.put("/opt/ca/vendor-root.pem", vendor_root)
    typed(machine, preparation, "/opt/ca")
    typed(machine, "openssl x509 -in /opt/ca/root.pem -outform DER -out /media/usb/hospital-ca.cer")
    return start.strip()


def certify_by_hand(machine: UnpackedMachine) -> None:
    """The Windows of the guide, played by openssl: the same files in, the same files out."""
    (command,) = [text for _, language, text in numbered("AD CS") if language == "bat"]
    assert "for %i in (device signing)" in command
    assert "E:\\scanseal-%i-*.txt" in command
    assert '"E:\\%~nf.p7b"' in command
    script = """
        for request in scanseal-device-*.txt scanseal-signing-*.txt; do
            name="${request%.txt}"
            openssl x509 -req -in "$request" -copy_extensions copy -days 365 -CA /opt/ca/issuing.pem \\
                -CAkey /opt/ca/issuing.key -CAcreateserial -out "$name.cer"
            # AD CS writes CERTIFICATE into the armour of a PKCS#7.
            openssl crl2pkcs7 -nocrl -certfile "$name.cer" -certfile /opt/ca/issuing.pem \\
                -certfile /opt/ca/root.pem | sed s/PKCS7/CERTIFICATE/ >"$name.p7b"
        done
    """
    typed(machine, script, "/media/usb")


def certify_by_openssl_ca(machine: UnpackedMachine, request: str) -> None:
    """`openssl ca` with the configuration that comes with OpenSSL, changed as the file with the request says."""
    (command,) = re.findall(r"openssl ca .*", request)
    (settings,) = re.findall(r"section of the CA in CA\.cnf:\n(.*?) +and in \[ policy_anything \]:", request, re.DOTALL)
    (names,) = re.findall(r"and in \[ policy_anything \]:\n(.*?) +or\n", request, re.DOTALL)
    changed = [re.sub(r" +\(.*\)", "", line).strip() for line in settings.splitlines()]
    script = "mkdir -p demoCA/newcerts; touch demoCA/index.txt; cp /etc/ssl/openssl.cnf CA.cnf\n"
    for setting in changed:
        name, _, _ = setting.partition(" = ")
        script += f"sed -i 's/^#* *{name}[[:space:]]*=.*/{setting}/' CA.cnf\n"
    script += f"sed -i 's/^\\[ policy_anything \\]/&\\n{names.strip()}/' CA.cnf\n"
    ca = "-cert /opt/ca/issuing.pem -keyfile /opt/ca/issuing.key -rand_serial -outdir demoCA/newcerts"
    script += f"{command.replace('openssl ca', f'openssl ca -batch {ca}')}\n"
    script += "openssl x509 -in answer.pem -noout -subject"
    assert "serialNumber = CT-000123" in typed(machine, script, "/media/usb").said


@needs_openssl
def test_with_an_est_server(machine: UnpackedMachine, tmp_path: Path) -> None:
    start_est_server(machine, tmp_path / "ca")

    said = followed(machine, "EST")

    check_signed(machine, said, "est")
    assert "the same for signing, once device has its certificate" in said

    (revoke,) = re.findall(r"`(scanseal revoke [^`]*)`", section("Later"))
    signing = "/var/lib/scanseal/identities/signing/current/certificate.pem"
    _, serial = typed(machine, f"openssl x509 -in {signing} -noout -serial").said.strip().split("=")
    assert serial.lower() in typed(machine, f"runuser -u scanseal -- {revoke}", code=exits.CONFIGURATION).said
    again = typed(machine, "runuser -u scanseal -- scanseal enroll est").said
    assert again.count("new key and certificate (generation 2)") == 2


@needs_openssl
def test_with_an_est_server_and_its_fingerprint_on_paper(machine: UnpackedMachine, tmp_path: Path) -> None:
    start_est_server(machine, tmp_path / "ca")
    root = x509.load_pem_x509_certificate((tmp_path / "ca/root.pem").read_bytes())
    paper = root.fingerprint(hashes.SHA256()).hex(":").upper()
    text = section("EST without a stick")
    assert 'anchor_fingerprint = "15:B1:..."' in text
    (anchor,) = re.findall(r"`(/\S+/anchor\.pem)`", text)

    said = ""
    for number, _, command in numbered("EST")[1:]:
        here = command.replace('anchor_file = "/etc/scanseal/hospital-ca.pem"', f'anchor_fingerprint = "{paper}"')
        here = here.replace("/etc/scanseal/hospital-ca.pem", anchor)
        assert (here != command) == (number in {3, 9})
        said += typed(machine, here).said

    check_signed(machine, said, "est")


@needs_openssl
def test_with_step_ca(machine: UnpackedMachine, tmp_path: Path) -> None:
    pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")
    program = step_ca.step_ca_program()
    vendor_root = start_vendor(machine, tmp_path / "vendor", start_tpm(machine, tmp_path / "tpm"))
    start = made_ca(machine, vendor_root)
    typed(machine, f"ln -s {program} /usr/local/bin/step-ca")
    machine.start(f"bash -c '{start}'", 443, "/opt/ca")

    check_signed(machine, followed(machine, "step-ca"), "acme")


@needs_openssl
def test_with_ad_cs_played_by_openssl(machine: UnpackedMachine) -> None:
    made_ca(machine, b"")

    said = followed(machine, "AD CS", lambda: certify_by_hand(machine))

    check_signed(machine, said, "offline")
    (request,) = machine.path("/media/usb").glob("scanseal-device-*.txt")
    text = request.read_text("ascii")
    assert "1.3.6.1.5.5.7.3.2 is clientAuth" in text
    for _ in range(2):
        certify_by_openssl_ca(machine, text)
    (remove,) = re.findall(r"`(rm [^`]*)`", section("Later"))
    typed(machine, remove)
    for number, _, text in numbered("AD CS"):  # the renewal, a year later
        if number in {5, 7}:
            typed(machine, text)
        elif number == 6:
            certify_by_hand(machine)
    assert typed(machine, "runuser -u scanseal -- scanseal status").said.count("generation 2,") == 2
    assert "never run by our tests" in section("AD CS")
    assert "Not run by our tests" in section("An AD CS")


@needs_openssl
def test_a_failure_is_shown_as_the_guide_says_until_it_is_mended(machine: UnpackedMachine, tmp_path: Path) -> None:
    made_ca(machine, b"")  # any root certificate
    machine.put("/etc/scanseal/est-password", "a password", "scanseal", 0o400)
    first, _, configuration = (text for _, _, text in numbered("EST")[:3])
    for command in (first, configuration):
        typed(machine, command)
    (shown,) = re.findall(r"```\n(device .*?)```", section("When it does not work"), re.DOTALL)

    typed(machine, "runuser -u scanseal -- scanseal enroll est", code=exits.UNAVAILABLE)
    status = typed(machine, "runuser -u scanseal -- scanseal status", code=exits.UNAVAILABLE).said

    assert without_times(shown) in without_times(status)

    start_est_server(machine, tmp_path / "ca")
    for _, _, command in numbered("EST"):
        if command != configuration:
            typed(machine, command)
    assert "failed" not in typed(machine, "runuser -u scanseal -- scanseal status").said


@pytest.mark.parametrize("title", WAYS)
def test_a_scanner_signs_after_ten_commands_at_most(title: str) -> None:
    commands = numbered(title)

    assert [number for number, _, _ in commands] == list(range(1, len(commands) + 1))
    assert len(commands) <= LIMIT
    assert len(re.findall(r"```\w", section(title))) == len(commands)
    for _, _, text in commands:
        line = re.sub(r"<<'END'\n.*\nEND\n", "", text, flags=re.DOTALL)
        assert len(line.splitlines()) == 1
        assert not re.search(r"[;&]|\|\|", line), "several commands in one line"


@pytest.mark.parametrize("title", WAYS)
def test_the_configuration_of_each_way_is_accepted(title: str, tmp_path: Path) -> None:
    (table,) = re.findall(r"<<'END'\n(.*)\nEND\n", section(title), re.DOTALL)
    path = tmp_path / "scanseal.toml"
    path.write_text(vendors_configuration(tpm=title == "step-ca") + table, "utf-8")

    config.load(path, StateFiles())


@pytest.mark.parametrize("title", ["CMP", "SCEP, and why it is last"])
def test_so_is_that_of_the_ways_that_are_like_est(title: str, tmp_path: Path) -> None:
    (table,) = blocks(section(title), "toml")
    path = tmp_path / "scanseal.toml"
    path.write_text(vendors_configuration(tpm=False) + table, "utf-8")

    config.load(path, StateFiles())


def test_a_table_that_was_appended_twice_is_named(tmp_path: Path) -> None:
    (table,) = re.findall(r"<<'END'\n(.*)\nEND\n", section("EST"), re.DOTALL)
    path = tmp_path / "scanseal.toml"
    path.write_text(vendors_configuration(tpm=False) + table + "\n" + table, "utf-8")

    with pytest.raises(ConfigurationError, match=r"The table \[est\] stands there twice: merge them"):
        config.load(path, StateFiles())


def test_every_way_to_the_owners_ca_is_in_the_guide() -> None:
    text = section("Which way?").casefold()

    assert {flow for flow in FLOWS if flow not in text} == {"vendor"}


def test_every_code_of_the_guide_is_one_that_is_said() -> None:
    named = re.findall(r"^\| `([a-z-]+)` \|", section("When it does not work"), re.MULTILINE)
    source = "".join(path.read_text("utf-8") for path in (ROOT / "enroll").rglob("*.py"))
    said = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source))
    said |= {f"certificate-{check}" for check in re.findall(r'refused\(\s*"([a-z-]+)"', source)}

    assert len(named) > 8
    assert set(named) - said == set()
