"""`scanseal verify` as its users see it: every option, many files, files that fight back, and the way it ends."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.cli import exits, verifying
from agent.cli.main import run
from agent.cli.verifying import FileResult, FileVerifier
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.sign import SignaturePlan
from agent.dicom.splice import spliced
from agent.dicom.stamping import StampableInstance
from agent.policy.load import load_policy
from agent.policy.verdicts import ExitCode
from enroll.certificates import pem
from tests.support import policies
from tests.support.agent_process import ROOT
from tests.support.certificates import SERIAL_NUMBER, Authority, Signer, rsa_key
from tests.support.pki import HospitalCa
from tests.support.product_signing import sign_bytes
from tests.support.provenance import image, made_from, uid
from tests.support.raw_dicom import Node, part10, text
from tests.support.revocation import revocation_list
from tests.support.terminal import on_a_terminal
from tests.support.time_stamp_authority import new_tsa
from tests.support.time_stamp_tokens import token

NOW = datetime.now(UTC)
SYNTHETIC = text(0x0008001C, "CS", "YES")
_signature_uids = (f"2.25.{number}" for number in itertools.count(70_000))


@dataclass(frozen=True)
class Hospital:
    """A CA, a scanner and a workstation of one serial number, and somebody nobody knows."""

    authority: Authority
    scanner: Signer
    workstation: Signer
    stranger: Signer

    @property
    def anchor(self) -> str:
        return str(self.authority.certificate_file)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    authority = Authority(tmp_path_factory.mktemp("ca"), NOW)
    foreign = Authority(tmp_path_factory.mktemp("foreign"), NOW, "Somebody's CA")
    return Hospital(
        authority,
        authority.issue("scanner", rsa_key(2048)),
        authority.issue("workstation", rsa_key(2048)),
        foreign.issue("stranger", rsa_key(2048)),
    )


def signed(data: bytes, signer: Signer, profile: ProfileName = ProfileName.CREATOR_PLUS) -> bytes:
    """With one signature more."""
    return _signed(data, signer, signer.sign_digest("sha256"), profile)


def with_broken_signature(data: bytes, signer: Signer) -> bytes:
    """With a signature more that nobody made."""
    return _signed(data, signer, lambda _: b"\1" * 256, ProfileName.CREATOR_PLUS)


def _signed(data: bytes, signer: Signer, sign: Callable[[bytes], bytes], profile: ProfileName) -> bytes:
    plan = SignaturePlan(load_profile(profile), "sha256", next(_signature_uids), NOW)
    return sign_bytes(data, plan, sign, signer.certificate_der)


def scan(hospital: Hospital, own: int = 3, *, pixels: bytes = b"pixels") -> bytes:
    """A signed original."""
    return signed(part10(image(own, SERIAL_NUMBER, "ORIGINAL", pixels=pixels)), hospital.scanner)


def derived(hospital: Hospital, source: bytes, *more: Node, own: int = 1) -> bytes:
    """A signed image that was made from the one with the UID 2.25.3."""
    return signed(part10(image(own, SERIAL_NUMBER, "DERIVED", made_from(source, 3), *more)), hospital.workstation)


@dataclass(frozen=True)
class Answer:
    """What a verification said."""

    exit_code: int
    files: list[dict[str, Any]]
    summary: dict[str, int]

    @property
    def only(self) -> tuple[int, str]:
        """Exit code and verdict of the only file."""
        (file,) = self.files
        return self.exit_code, file["verdict"]


@dataclass(frozen=True)
class Desk:
    """Where files are verified."""

    hospital: Hospital
    folder: Path
    output: pytest.CaptureFixture[str]

    def file(self, content: bytes, name: str = "image.dcm") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def verify(self, *arguments: object) -> Answer:
        self.output.readouterr()
        code = run(["verify", "--json", "--anchor", self.hospital.anchor, *map(str, arguments)])
        document = json.loads(self.output.readouterr().out)
        return Answer(code, document["files"], document["summary"])

    def text(self, *arguments: object) -> tuple[int, list[str]]:
        self.output.readouterr()
        code = run(["verify", "--anchor", self.hospital.anchor, *map(str, arguments)])
        return code, self.output.readouterr().out.splitlines()

    def policy(self, *entries: str, anchor: x509.Certificate | None = None, mode: str = "enforce") -> Path:
        trusted = policies.anchor("owner-ca", "owner-ca", anchor or self.hospital.authority.certificate, "device")
        path = self.folder / "policy.toml"
        path.write_text("\n".join([policies.head(mode), trusted, *entries]), "utf-8")
        return path


@pytest.fixture
def desk(hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(hospital, tmp_path, capsys)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "agent.cli.main", "verify", *map(str, arguments)]


def printed(*arguments: object, expected: int) -> str:
    """What the command prints, run as a program."""
    ran = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == expected, ran.stderr
    return ran.stdout


# --- the exit code of several files ---


def test_a_folder_is_not_all_right_if_one_file_is_not(desk: Desk) -> None:
    """A flagged file is VALID with 3; DERIVED_VERIFIED_SOURCES with 0 stands above VALID."""
    sound = desk.file(scan(desk.hospital), "1.dcm")
    flagged = desk.file(with_broken_signature(scan(desk.hospital), desk.hospital.stranger), "2.dcm")
    assert desk.verify(flagged).only == (ExitCode.VALID_WITH_RESERVATIONS, "VALID")
    source = desk.file(scan(desk.hospital), "source.dcm")
    made = desk.file(derived(desk.hospital, source.read_bytes()), "3.dcm")
    assert desk.verify("--sources", source, made).only == (exits.OK, "DERIVED_VERIFIED_SOURCES")
    for order in itertools.permutations((sound, flagged, made)):
        assert desk.verify("--sources", source, *order).exit_code == ExitCode.VALID_WITH_RESERVATIONS


def test_of_the_files_that_are_not_all_right_the_verdict_that_stands_highest_decides(desk: Desk) -> None:
    unsigned = desk.file(part10(image(1, SERIAL_NUMBER, "ORIGINAL")), "1.dcm")
    flagged = desk.file(with_broken_signature(scan(desk.hospital), desk.hospital.stranger), "2.dcm")
    broken = desk.file(scan(desk.hospital).replace(b"pixels", b"forged"), "3.dcm")
    assert desk.verify(unsigned, flagged).exit_code == ExitCode.UNSIGNED
    assert desk.verify(unsigned, flagged, broken).exit_code == ExitCode.BROKEN


# --- the policy and what the recipient knows ---

FROM_NOVEMBER = '[[rule]]\nid = "all"\nexpect = "signed"\nfrom = 2026-11-01\n'
DEVICE = f"""
[[device]]
id = "ct1"
match.serial = "{SERIAL_NUMBER}"
match.manufacturer = "Maker"
signer.anchor = "owner-ca"
signer.serial_number = "{SERIAL_NUMBER}"
expect = "signed"
"""


def test_with_a_policy_an_unsigned_file_is_a_violation(desk: Desk) -> None:
    file = desk.file(part10(image(1, SERIAL_NUMBER, "ORIGINAL")))
    assert desk.verify(file).only == (ExitCode.UNSIGNED, "UNSIGNED")
    assert desk.verify("--policy", desk.policy(FROM_NOVEMBER), file).only == (
        ExitCode.UNSIGNED_VIOLATION,
        "UNSIGNED_VIOLATION",
    )


def test_with_a_policy_the_device_that_it_names_is_expected(desk: Desk) -> None:
    nodes = (*image(1, SERIAL_NUMBER, "ORIGINAL"), text(0x00080070, "LO", "Maker"))
    file = desk.file(signed(part10(tuple(sorted(nodes, key=lambda node: node.tag))), desk.hospital.scanner))
    assert desk.verify("--policy", desk.policy(DEVICE), file).only == (exits.OK, "VALID_EXPECTED_SIGNER")


@pytest.mark.parametrize(
    ("received", "verdict"),
    [
        ("2026-10-31", "UNSIGNED_NOT_YET_EXPECTED"),
        ("2026-11-01", "UNSIGNED_VIOLATION"),
        ("2026-10-31T23:59:59-0100", "UNSIGNED_VIOLATION"),
        ("2026-11-01T00:30:00+0100", "UNSIGNED_NOT_YET_EXPECTED"),
    ],
)
def test_the_day_of_receipt_decides_what_is_expected(desk: Desk, received: str, verdict: str) -> None:
    file = desk.file(part10(image(1, SERIAL_NUMBER, "ORIGINAL")))
    answer = desk.verify("--policy", desk.policy(FROM_NOVEMBER), "--received", received, file)
    assert answer.files[0]["verdict"] == verdict


def test_who_sent_it_decides_which_entry_speaks(desk: Desk) -> None:
    file = desk.file(part10(image(1, SERIAL_NUMBER, "ORIGINAL")))
    policy = desk.policy('[[rule]]\nid = "one"\nmatch.sending_ae = "CT_ONE"\nexpect = "signed"\n')
    assert desk.verify("--policy", policy, file).only == (ExitCode.UNSIGNED, "UNSIGNED_NOT_COVERED")
    assert desk.verify("--policy", policy, "--sending-ae", "CT_ONE", file).only == (
        ExitCode.UNSIGNED_VIOLATION,
        "UNSIGNED_VIOLATION",
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "state-missing"), ("schema = 1", "policy-invalid"), ("[policy", "policy-not-toml"), ("\udcff", None)],
)
def test_a_policy_that_cannot_be_used_ends_everything_before_it_begins(
    desk: Desk, content: str | None, code: str | None
) -> None:
    file, policy = desk.file(scan(desk.hospital)), desk.folder / "bad.toml"
    if content is not None:
        policy.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert run(["verify", "--json", "--policy", str(policy), str(file)]) == exits.CONFIGURATION
    error = json.loads(desk.output.readouterr().out)["error"]
    assert "bad.toml" in error["what"]
    assert code is None or content is None or error["code"] == code


def test_a_file_without_anchors_is_a_fault_of_the_configuration(desk: Desk) -> None:
    file = desk.file(scan(desk.hospital))
    assert run(["verify", "--anchor", str(file), str(file)]) == exits.CONFIGURATION


def test_a_revocation_list_is_heeded(desk: Desk) -> None:
    authority, file = desk.hospital.authority, desk.file(scan(desk.hospital))
    revoked = {desk.hospital.scanner.certificate.serial_number: NOW - timedelta(minutes=10)}
    for name, entries, expected in (("clean.crl", {}, exits.OK), ("revoked.crl", revoked, None)):
        made = revocation_list(authority.certificate.subject, authority.key, NOW, entries)
        crl = desk.file(made.public_bytes(Encoding.DER), name)
        answer = desk.verify("--revocation-list", crl, file)
        assert answer.exit_code == expected if expected is not None else answer.exit_code != exits.OK
        codes = [finding["code"] for finding in answer.files[0]["signatures"][0]["chain"]["findings"]]
        assert ("certificate-revoked" in codes) == bool(entries)


def test_a_time_stamp_counts_if_its_anchor_is_given(desk: Desk) -> None:
    ca = HospitalCa("TSA CA")
    data = scan(desk.hospital)
    instance = StampableInstance.read(data)
    edits = instance.edits({0: token(new_tsa(ca), instance.signatures[0].value, NOW)})
    parts = spliced(len(data), edits)
    file = desk.file(b"".join(part if isinstance(part, bytes) else data[slice(*part)] for part in parts))
    anchor = desk.file(pem((ca.certificate,)), "tsa-ca.pem")
    assert desk.verify(file).files[0]["signatures"][0]["time"]["trusted"] is None
    assert desk.verify("--time-stamp-anchor", anchor, file).files[0]["signatures"][0]["time"]["trusted"]
    assert any("time stamp: existed by" in line for line in desk.text("--time-stamp-anchor", anchor, file)[1])


# --- sources ---


def sources_of(answer: Answer) -> dict[str, str]:
    nodes = answer.files[0]["provenance"]["nodes"]
    return {node["sop_instance_uid"]: node["verdict"] for node in nodes}


def test_a_signed_derived_image_is_valid_as_long_as_nobody_looks_at_its_sources(desk: Desk) -> None:
    """VALID is about the signature; a policy can ask for more (`expect = "signed-with-sources"`)."""
    file = desk.file(derived(desk.hospital, scan(desk.hospital)))
    assert desk.verify(file).only == (exits.OK, "VALID")
    policy = desk.policy('[[rule]]\nid = "made"\nmatch.content = "DERIVED"\nexpect = "signed-with-sources"\n')
    assert desk.verify("--policy", policy, file).files[0]["verdict"] == "DERIVED_UNVERIFIED_SOURCE"


def test_a_source_that_is_there_verifies(desk: Desk) -> None:
    source = desk.file(scan(desk.hospital), "archive/3.dcm")
    file = desk.file(derived(desk.hospital, source.read_bytes()))
    answer = desk.verify("--sources", source.parent, file)
    assert answer.only == (exits.OK, "DERIVED_VERIFIED_SOURCES")
    assert sources_of(answer) == {uid(1): "verified", uid(3): "verified"}
    assert any("sources verified" in line for line in desk.text("--sources", source.parent, file)[1])


def test_a_source_that_is_not_there_is_missing(desk: Desk) -> None:
    other = desk.file(scan(desk.hospital, own=4), "archive/4.dcm")
    file = desk.file(derived(desk.hospital, scan(desk.hospital)))
    answer = desk.verify("--sources", other, file)
    assert answer.only == (ExitCode.UNVERIFIED_SOURCE, "DERIVED_UNVERIFIED_SOURCE")
    assert sources_of(answer)[uid(3)] == "missing"


def test_a_source_that_was_changed_is_not_what_was_referenced(desk: Desk) -> None:
    original = scan(desk.hospital)
    source = desk.file(original.replace(b"pixels", b"forged"), "archive/3.dcm")
    answer = desk.verify("--sources", source, desk.file(derived(desk.hospital, original)))
    assert answer.only == (ExitCode.UNVERIFIED_SOURCE, "DERIVED_UNVERIFIED_SOURCE")
    assert sources_of(answer)[uid(3)] == "mac-mismatch"


def test_a_source_whose_key_is_in_other_hands_is_not_verified(desk: Desk) -> None:
    source = desk.file(scan(desk.hospital), "archive/3.dcm")
    file = desk.file(derived(desk.hospital, source.read_bytes()))
    key = desk.hospital.scanner.certificate.public_key()
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    leak = f"""
[[compromise]]
id = "leak"
key_sha256 = "{digest.finalize().hex()}"
since = 2026-01-01T00:00:00Z
kind = "key-compromise"
"""
    clean = desk.verify("--policy", desk.policy(), "--sources", source, file)
    assert sources_of(clean)[uid(3)] == "verified"
    answer = desk.verify("--policy", desk.policy(leak), "--sources", source, file)
    assert sources_of(answer) == {uid(1): "verified", uid(3): "unknown-signer"}
    assert answer.files[0]["verdict"] == "DERIVED_UNVERIFIED_SOURCE"


def test_a_source_below_an_anchor_that_the_policy_does_not_name_is_not_verified(desk: Desk) -> None:
    source = desk.file(scan(desk.hospital), "archive/3.dcm")
    file = desk.file(derived(desk.hospital, source.read_bytes()))
    policy = desk.policy(anchor=HospitalCa("Another CA").certificate)
    assert sources_of(desk.verify("--policy", policy, "--sources", source, file))[uid(3)] == "unknown-signer"


def test_a_broken_signature_that_was_appended_takes_nothing_from_a_source(desk: Desk) -> None:
    """Anybody can append one; docs/policy.md says of the instance itself that it changes no good verdict."""
    original = scan(desk.hospital)
    source = desk.file(with_broken_signature(original, desk.hospital.stranger), "archive/3.dcm")
    answer = desk.verify("--sources", source, desk.file(derived(desk.hospital, original)))
    assert answer.only == (exits.OK, "DERIVED_VERIFIED_SOURCES")


def test_what_a_source_says_is_proven_by_the_signature_of_a_known_signer_alone(desk: Desk) -> None:
    """A stranger's signature over the origin must not make up for a known signer's that leaves it out."""
    original = part10(image(3, SERIAL_NUMBER, "DERIVED", made_from(scan(desk.hospital, own=4), 4)))
    source = desk.file(signed(original, desk.hospital.stranger), "archive/3.dcm")
    desk.file(scan(desk.hospital, own=4), "archive/4.dcm")
    answer = desk.verify("--sources", source.parent, desk.file(derived(desk.hospital, original)))
    edges = {edge["derived"]: edge["covered"] for edge in answer.files[0]["provenance"]["edges"]}
    assert edges == {uid(1): True, uid(3): False}


def test_a_derived_source_is_verified_by_its_own_sources(desk: Desk) -> None:
    """Also where the policy demands sources of whatever is derived: the graph is what finds them."""
    original = desk.file(scan(desk.hospital, own=4), "archive/4.dcm")
    between = part10(image(3, SERIAL_NUMBER, "DERIVED", made_from(original.read_bytes(), 4)))
    source = desk.file(signed(between, desk.hospital.workstation), "archive/3.dcm")
    file = desk.file(derived(desk.hospital, source.read_bytes()))
    policy = desk.policy('[[rule]]\nid = "made"\nmatch.content = "DERIVED"\nexpect = "signed-with-sources"\n')
    for arguments in ((), ("--policy", policy)):
        answer = desk.verify(*arguments, "--sources", source.parent, file)
        assert set(sources_of(answer).values()) == {"verified"}
    original.unlink()
    assert sources_of(desk.verify("--sources", source.parent, file))[uid(4)] == "missing"


def test_a_synthetic_image_without_sources_has_none_that_could_be_verified(desk: Desk) -> None:
    other = desk.file(scan(desk.hospital, own=4), "archive/4.dcm")
    made_up = part10(image(1, SERIAL_NUMBER, "ORIGINAL", SYNTHETIC))
    file = desk.file(signed(made_up, desk.hospital.workstation))
    assert desk.verify("--sources", other, file).only == desk.verify(file).only == (exits.OK, "VALID")
    assert not any("sources verified" in line for line in desk.text("--sources", other, file)[1])


def test_files_that_are_no_sources_are_passed_over(desk: Desk) -> None:
    source = desk.file(scan(desk.hospital), "archive/3.dcm")
    desk.file(b"not DICOM", "archive/notes.txt")
    file = desk.file(derived(desk.hospital, source.read_bytes()))
    assert desk.verify("--sources", source.parent, "--sources", "/proc/self/mem", file).exit_code == exits.OK


# --- many files ---


def many(desk: Desk, count: int) -> list[Path]:
    """Valid, changed, unsigned and unreadable files in turn, of sizes that differ."""
    good = scan(desk.hospital)
    kinds = (
        good,
        good.replace(b"pixels", b"forged"),
        part10(image(3, SERIAL_NUMBER, "ORIGINAL", pixels=b"\0" * 300_000)),
        b"not DICOM",
        scan(desk.hospital, pixels=b"\1" * 100_000),
    )
    return [desk.file(kinds[number % len(kinds)], f"study/{number:03}.dcm") for number in range(count)]


def test_two_processes_give_the_same_answers_as_one_in_the_order_of_the_files(desk: Desk) -> None:
    files = many(desk, 70)
    arguments = ("--json", "--anchor", desk.hospital.anchor, desk.folder / "study")
    one, two = (json.loads(printed("--jobs", jobs, *arguments, expected=ExitCode.BROKEN)) for jobs in (1, 2))
    assert one == two
    assert [file["file"] for file in two["files"]] == list(map(str, files))
    assert two["summary"] == {"VALID": 28, "BROKEN": 14, "UNSIGNED": 14, "INDETERMINATE": 14}


def test_the_policy_and_the_sources_are_read_once_for_all_files(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    many(desk, 70)
    read: list[object] = []

    def counted(*arguments: Any) -> Any:
        read.append(arguments)
        return load_policy(*arguments)

    monkeypatch.setattr(verifying, "load_policy", counted)
    desk.verify("--jobs", 1, "--policy", desk.policy(), desk.folder / "study")
    assert len(read) == 1


def test_text_is_printed_as_it_comes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    files = many(desk, 3)
    result = FileVerifier.result

    def interrupted(self: FileVerifier, file: Path) -> FileResult:
        if file == files[2]:
            raise KeyboardInterrupt
        return result(self, file)

    monkeypatch.setattr(FileVerifier, "result", interrupted)
    code, lines = desk.text(*files)
    assert code == exits.INTERRUPTED
    assert [line.split(": ")[1] for line in lines if not line.startswith(" ")] == ["VALID", "BROKEN"]


def test_quiet_names_only_what_is_not_all_right_and_the_summary(desk: Desk) -> None:
    files = many(desk, 5)
    code, lines = desk.text("--quiet", *files)
    headlines = [line for line in lines if not line.startswith(" ")]
    assert code == ExitCode.BROKEN
    assert [line.split(": ")[0] for line in headlines[:-1]] == [str(files[1]), str(files[2]), str(files[3])]
    assert headlines[-1] == "5 files: 1 BROKEN, 1 INDETERMINATE, 1 UNSIGNED, 2 VALID"
    assert desk.text("--quiet", files[0]) == (exits.OK, ["1 file: 1 VALID"])


def test_one_file_needs_no_summary(desk: Desk) -> None:
    code, lines = desk.text(desk.file(scan(desk.hospital)))
    assert code == exits.OK
    assert not any("1 file" in line for line in lines)


def test_progress_is_shown_on_a_terminal_and_not_in_the_output(desk: Desk) -> None:
    many(desk, 5)
    arguments = ("--json", "--anchor", desk.hospital.anchor, desk.folder / "study")
    shown, output = on_a_terminal(command(*arguments), streams=("stderr",))
    assert "Verifying" in shown
    assert "100%" in shown
    assert len(json.loads(output)["files"]) == 5


def test_on_one_terminal_results_and_progress_do_not_run_into_each_other(desk: Desk) -> None:
    files = many(desk, 5)
    shown, _ = on_a_terminal(command("--anchor", desk.hospital.anchor, *files), streams=("stdout", "stderr"))
    assert "Verifying" in shown
    lines = [re.sub(r"\x1b\[\?25[lh]", "", line.rsplit("\x1b[K", 1)[-1]) for line in shown.split("\r\n")]
    assert [line.split(": ")[0] for line in lines if line.startswith(str(desk.folder))] == list(map(str, files))
    shown, _ = on_a_terminal(command("--json", *files), streams=("stdout", "stderr"))
    assert len(json.loads(shown)["files"]) == 5


# --- files that fight back ---


def test_a_file_that_cannot_be_read_to_its_end_loses_no_other_answer(desk: Desk) -> None:
    """/proc/self/mem is a regular file whose first byte gives EIO."""
    file = desk.file(scan(desk.hospital))
    answer = desk.verify(file, "/proc/self/mem", file)
    assert [item["verdict"] for item in answer.files] == ["VALID", "INDETERMINATE", "VALID"]
    assert answer.files[1]["error"]["code"] == "input-unreadable"
    assert answer.exit_code == ExitCode.INDETERMINATE


def test_a_file_that_goes_away_meanwhile_is_one_that_cannot_be_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = many(desk, 3)
    stat = Path.stat

    def then_gone(self: Path, **options: Any) -> os.stat_result:
        status = stat(self, **options)
        if self == files[1]:
            self.unlink()
        return status

    monkeypatch.setattr(Path, "stat", then_gone)
    answer = desk.verify(files[0], files[1], files[2])
    assert [file["verdict"] for file in answer.files] == ["VALID", "INDETERMINATE", "UNSIGNED"]


def test_a_folder_below_that_cannot_be_listed_is_not_passed_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.file(scan(desk.hospital), "study/1.dcm")
    closed = desk.file(scan(desk.hospital), "study/closed/2.dcm").parent
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if os.fspath(path) == str(closed):
            raise PermissionError(errno.EACCES, "Permission denied", str(closed))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    answer = desk.verify(desk.folder / "study")
    assert {file["file"]: file["exit_code"] for file in answer.files} == {
        str(desk.folder / "study" / "1.dcm"): exits.OK,
        str(closed): ExitCode.INDETERMINATE,
    }


@pytest.mark.parametrize("name", ["a\nimage.dcm: VALID: it is as it was signed", "a\x1b[2Kb", "a\u202eb"])
def test_a_file_name_cannot_forge_a_line(desk: Desk, name: str) -> None:
    """A verdict is what stands at the beginning of a line."""
    path = desk.folder / name
    for content in (scan(desk.hospital).replace(b"pixels", b"forged"), b"not DICOM", None):
        path.unlink(missing_ok=True)
        if content is not None:
            desk.file(content, name)
        _, lines = desk.text(path)
        assert not any(line.lstrip().startswith("image.dcm") for line in lines)
        assert all(line.isprintable() for line in lines)
        assert desk.verify(path).files[0]["file"] == str(path)


def test_a_file_name_cannot_forge_a_line_of_the_time_stamping_either(desk: Desk) -> None:
    path = desk.file(b"not DICOM", "a\nimage.dcm: written to stamped.dcm")
    desk.output.readouterr()
    assert run(["timestamp", str(path), "--query-directory", str(desk.folder)]) == exits.INSTANCE_REFUSED
    (line,) = desk.output.readouterr().out.splitlines()
    assert "a image.dcm: written to stamped.dcm: not stamped" in line
    assert run(["timestamp", "/proc/self/mem", "--query-directory", str(desk.folder)]) == exits.NO_INPUT


def test_a_file_name_that_is_no_text_is_shown(desk: Desk) -> None:
    path = desk.folder / os.fsdecode(b"\xff.dcm")
    path.write_bytes(scan(desk.hospital))
    assert printed("--anchor", desk.hospital.anchor, path, expected=exits.OK)


def test_a_fifo_is_not_waited_for(desk: Desk) -> None:
    desk.file(scan(desk.hospital), "study/1.dcm")
    os.mkfifo(desk.folder / "study" / "pipe")
    assert len(desk.verify(desk.folder / "study").files) == 1
    answer = desk.verify(desk.folder / "study" / "pipe")
    assert answer.only == (ExitCode.INDETERMINATE, "INDETERMINATE")
    assert "not a regular file" in answer.files[0]["error"]["what"]


def test_folders_that_lead_into_each_other_end_and_are_reported(desk: Desk) -> None:
    desk.file(scan(desk.hospital), "study/series/1.dcm")
    (desk.folder / "study" / "series" / "up").symlink_to(desk.folder / "study", target_is_directory=True)
    (desk.folder / "study" / "self").symlink_to("self")
    answer = desk.verify(desk.folder / "study")
    verdicts = {Path(file["file"]).name: file["verdict"] for file in answer.files}
    assert verdicts == {"1.dcm": "VALID", "up": "INDETERMINATE", "self": "INDETERMINATE"}


def test_a_link_to_an_image_is_followed_as_a_viewer_would(desk: Desk) -> None:
    desk.file(scan(desk.hospital), "study/1.dcm")
    broken = desk.file(part10(image(4, SERIAL_NUMBER, "ORIGINAL")), "elsewhere/2.dcm")
    (desk.folder / "study" / "2.dcm").symlink_to(broken)
    answer = desk.verify(desk.folder / "study")
    assert [file["verdict"] for file in answer.files] == ["VALID", "UNSIGNED"]
