"""Trusted time end to end: `openssl ts` is the authority, dcmsign and `openssl ts -verify` are the other readers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agent.cli import exits
from agent.cli.main import run
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import SignatureReport
from agent.dicom.signature_items import CERTIFIED_TIMESTAMP
from agent.dicom.signer_chain import TrustMaterial
from agent.dicom.splice import spliced
from agent.dicom.stamping import StampableInstance
from agent.dicom.timestamp import verify_time_stamp
from agent.dicom.verify import Verification, verify_instance
from enroll.time_stamp_authority import new_query
from tests.support import dcmsign
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dcmsign import Exit, needs_dcmsign
from tests.support.dicom_samples import TRANSFER_SYNTAX_SAMPLES, ct_slice, sample, small_instance
from tests.support.dicom_tree import DIGITAL_SIGNATURES, find, parse, value
from tests.support.openssl import needs_openssl, openssl
from tests.support.pki import HospitalCa
from tests.support.product_signing import plan, sign, sign_bytes
from tests.support.terminal import on_a_terminal
from tests.support.time_stamp_authority import OpensslTsa, TsaContent, new_tsa, time_stamp_server
from tests.support.time_stamp_tokens import Recipe, token

pytestmark = needs_openssl

TSA_CA = HospitalCa("TSA CA")
ANCHORS = (TSA_CA.certificate,)
HOUR = timedelta(hours=1)
VALUE = b"the value of a signature"


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def tsa(tmp_path: Path) -> OpensslTsa:
    return OpensslTsa(new_tsa(TSA_CA), tmp_path / "tsa")


@pytest.fixture
def url(tsa: OpensslTsa) -> Iterator[str]:
    with time_stamp_server(tsa.http) as address:
        yield address


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC))


@pytest.fixture(scope="module")
def signer(authority: Authority) -> Signer:
    return authority.issue("signer", rsa_key(2048))


@pytest.fixture
def signed(tmp_path: Path, signer: Signer) -> Path:
    path = tmp_path / "signed.dcm"
    path.write_bytes(sign(ct_slice(8, 8), signer))
    return path


def stamped(data: bytes, made: bytes) -> bytes:
    """The instance with a token on its only signature."""
    parts = spliced(len(data), StampableInstance.read(data).edits({0: made}))
    return b"".join(part if isinstance(part, bytes) else data[slice(*part)] for part in parts)


def dcmsign_verdict(path: Path, authority: Authority, tsa: OpensslTsa) -> int:
    anchors = ("+cf", authority.certificate_file, "+cf", tsa.anchor_file)
    return dcmsign.run("--verify", *anchors, "+rc", path).exit_code


def report(path: Path, authority: Authority, at: datetime) -> SignatureReport:
    trust = TrustMaterial(anchors=(authority.certificate,), time_stamp_anchors=ANCHORS)
    verification = Verification(load_profile(ProfileName.CREATOR_RSA), at, trust=trust)
    (found,) = verify_instance(path.read_bytes(), verification).signatures
    return found


# --- tokens ---


@pytest.mark.parametrize("key", ["rsa", "ec"])
@pytest.mark.parametrize("certificate_id", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_tokens_of_openssl_are_understood(tmp_path: Path, key: str, certificate_id: str, digest: str) -> None:
    private = rsa_key(2048) if key == "rsa" else ec.generate_private_key(ec.SECP384R1())
    tsa = OpensslTsa(
        new_tsa(TSA_CA, private), tmp_path, signer_digest=digest, certificate_id_hash=certificate_id, fraction_digits=6
    )
    before = now()
    made = tsa.token(new_query(VALUE, 2**63))
    found = verify_time_stamp(made, VALUE, ANCHORS, now(), nonce=2**63)

    assert before <= found.time <= now() + timedelta(seconds=1)
    assert found.accuracy == timedelta(seconds=2, milliseconds=500)


def test_openssl_may_send_the_whole_path(tmp_path: Path) -> None:
    issuing = HospitalCa("Issuing CA", parent=TSA_CA)
    below = new_tsa(issuing, chain=(issuing.certificate,), anchor=TSA_CA.certificate)
    made = OpensslTsa(below, tmp_path).token(new_query(VALUE, None))

    assert len(verify_time_stamp(made, VALUE, ANCHORS, now()).path) == 3


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(certificate_id="sha1"),
        Recipe(digest="sha512", certificate_id="sha384"),
        Recipe(imprint_hash="sha384"),
    ],
    ids=["plain", "ESSCertID", "SHA-2", "imprint"],
)
def test_openssl_agrees_with_the_tokens_that_tests_make(tsa: OpensslTsa, tmp_path: Path, recipe: Recipe) -> None:
    """Otherwise the wrong tokens of the other tests might be wrong for another reason."""
    (tmp_path / "token").write_bytes(token(tsa.tsa, VALUE, now(), recipe))
    (tmp_path / "data").write_bytes(VALUE)
    files = ("-in", tmp_path / "token", "-token_in", "-data", tmp_path / "data", "-CAfile", tsa.anchor_file)

    assert "Verification: OK" in openssl("ts", "-verify", *files)


# --- instances ---


@needs_dcmsign
@pytest.mark.parametrize("name", TRANSFER_SYNTAX_SAMPLES.values(), ids=TRANSFER_SYNTAX_SAMPLES)
def test_dcmsign_reads_our_time_stamps_in_every_transfer_syntax(
    name: str, tsa: OpensslTsa, authority: Authority, signer: Signer, tmp_path: Path
) -> None:
    instance = sign(sample(name).path.read_bytes(), signer)
    path = tmp_path / "stamped.dcm"
    path.write_bytes(stamped(instance, tsa.token(new_query(StampableInstance.read(instance).signatures[0].value, 1))))
    ran = dcmsign.run("--verify", "+cf", authority.certificate_file, "+cf", tsa.anchor_file, "+tr", "+rc", path)

    assert ran.accepted, ran.output
    assert "Timestamp Verification : OK" in ran.output


@needs_dcmsign
def test_we_read_the_time_stamps_that_dcmsign_inserts(
    tsa: OpensslTsa, authority: Authority, signer: Signer, tmp_path: Path
) -> None:
    source, query, uid = tmp_path / "plain.dcm", tmp_path / "query.tsq", tmp_path / "uid.txt"
    source.write_bytes(ct_slice(8, 8))
    half, whole = tmp_path / "half.dcm", tmp_path / "whole.dcm"
    options = (*dcmsign.CREATOR, "+ts", query, uid)
    assert dcmsign.run("+s", signer.key_file, signer.certificate_file, "+m2", *options, source, half).accepted
    assert dcmsign.run("+t", query, tsa.response_file(query), uid, half, whole).accepted

    (signature,) = StampableInstance.read(whole.read_bytes()).signatures
    found = find(parse(whole.read_bytes()).elements, DIGITAL_SIGNATURES)
    assert signature.time_stamp
    assert found is not None
    made = value((found.items or ())[0], CERTIFIED_TIMESTAMP)
    assert now() - verify_time_stamp(made, signature.value, ANCHORS, now()).time < HOUR
    assert report(whole, authority, now()).time.trusted is not None


@needs_dcmsign
def test_a_signature_outlives_its_certificate_by_its_time_stamp(tsa: OpensslTsa, tmp_path: Path) -> None:
    """DCMTK fails a good signature once the certificate has expired, unless there is a time stamp."""
    authority = Authority(tmp_path, now() - 4 * HOUR)
    authority.not_after = now() - HOUR
    expired = authority.issue("expired", rsa_key(2048))
    signed = sign_bytes(
        ct_slice(8, 8),
        plan(signed_at=now() - 3 * HOUR),
        expired.sign_digest("sha256"),
        expired.certificate_der,
    )
    bare, path = tmp_path / "bare.dcm", tmp_path / "stamped.dcm"
    bare.write_bytes(signed)
    made = token(tsa.tsa, StampableInstance.read(signed).signatures[0].value, now() - 2 * HOUR)
    path.write_bytes(stamped(signed, made))

    assert dcmsign_verdict(bare, authority, tsa) == Exit.VERIFICATION_FAILED
    assert dcmsign_verdict(path, authority, tsa) == Exit.OK


@needs_dcmsign
def test_a_signature_stamped_by_openssl_outlives_its_certificate(tsa: OpensslTsa, tmp_path: Path) -> None:
    authority = Authority(tmp_path, now())
    authority.not_after = now() + timedelta(seconds=3)
    short = authority.issue("short", rsa_key(2048))
    signed = sign(ct_slice(8, 8), short)
    (signature,) = StampableInstance.read(signed).signatures
    bare, path = tmp_path / "bare.dcm", tmp_path / "stamped.dcm"
    bare.write_bytes(signed)
    path.write_bytes(stamped(signed, tsa.token(new_query(signature.value, 1))))
    time.sleep(max(0.0, (authority.not_after - datetime.now(UTC)).total_seconds()) + 1.1)

    assert dcmsign_verdict(bare, authority, tsa) == Exit.VERIFICATION_FAILED
    assert dcmsign_verdict(path, authority, tsa) == Exit.OK
    ten_years_on = now() + timedelta(days=3653)
    assert report(path, authority, ten_years_on).chain.path
    assert report(path, authority, ten_years_on).time.trusted is not None
    assert report(bare, authority, ten_years_on).time.trusted is None


# --- scanseal timestamp ---


def stamp(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run(["timestamp", "--json", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out)


def test_a_file_is_stamped_and_the_original_kept(
    url: str, tsa: OpensslTsa, signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, target = signed.read_bytes(), tmp_path / "out" / "stamped.dcm"
    code, said = stamp(capsys, "--tsa", url, "--anchor", tsa.anchor_file, "-o", target, signed)
    (signature,) = said["files"][0]["signatures"]

    assert (code, signature["status"]) == (exits.OK, "stamped")
    assert "Test TSA" in signature["authority"]
    assert signed.read_bytes() == before
    assert StampableInstance.read(target.read_bytes()).signatures[0].time_stamp


def test_a_directory_is_stamped_in_place_and_only_once(
    url: str, tsa: OpensslTsa, signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive"
    (archive / "series").mkdir(parents=True)
    for number in range(3):
        (archive / "series" / f"{number}.dcm").write_bytes(sign(small_instance(), signer))
    (archive / "series" / "0.dcm").chmod(0o640)
    (archive / "notes.txt").write_text("not DICOM", encoding="ascii")
    arguments = ("--tsa", url, "--anchor", tsa.anchor_file, "--in-place", archive)
    code, said = stamp(capsys, *arguments)
    once = {path: path.read_bytes() for path in archive.rglob("*.dcm")}

    assert (code, len(said["files"])) == (exits.OK, 3)
    assert (archive / "series" / "0.dcm").stat().st_mode & 0o777 == 0o640
    code, said = stamp(capsys, *arguments)
    assert code == exits.OK
    assert {s["status"] for file in said["files"] for s in file["signatures"]} == {"already-stamped"}
    assert {path: path.read_bytes() for path in archive.rglob("*.dcm")} == once


def test_stamping_many_files_shows_progress_on_a_terminal(
    url: str, tsa: OpensslTsa, signer: Signer, tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    for number in range(3):
        (tmp_path / "archive" / f"{number}.dcm").write_bytes(sign(small_instance(), signer))
    command = [sys.executable, "-m", "agent.cli.main", "timestamp", "--json", "--tsa", url]
    arguments = ["--anchor", str(tsa.anchor_file), "--in-place", str(tmp_path / "archive")]
    shown, output = on_a_terminal([*command, *arguments], streams=("stderr",))
    assert "100%" in shown
    assert len(json.loads(output)["files"]) == 3


def test_a_directory_keeps_its_structure_in_the_output(
    url: str, tsa: OpensslTsa, signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("one", "two"):
        (tmp_path / "study" / folder).mkdir(parents=True)
        (tmp_path / "study" / folder / "a.dcm").write_bytes(sign(small_instance(), signer))
    out = tmp_path / "out"
    code, _ = stamp(capsys, "--tsa", url, "--anchor", tsa.anchor_file, "--output-directory", out, tmp_path / "study")

    assert code == exits.OK
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.dcm")) == ["one/a.dcm", "two/a.dcm"]


def test_after_a_file_that_cannot_be_stamped_the_next_one_is(
    url: str, tsa: OpensslTsa, signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unsigned, noise, absent = tmp_path / "unsigned.dcm", tmp_path / "noise.dcm", tmp_path / "absent.dcm"
    unsigned.write_bytes(small_instance())
    noise.write_bytes(b"no DICOM")
    out = tmp_path / "out"
    files = (unsigned, noise, absent, signed)
    code, said = stamp(capsys, "--tsa", url, "--anchor", tsa.anchor_file, "--output-directory", out, *files)

    assert code == exits.INSTANCE_REFUSED
    assert [file.get("error", {}).get("code") for file in said["files"]][:1] == ["not-signed"]
    assert ["error" in file for file in said["files"]] == [True, True, True, False]
    assert [path.name for path in out.iterdir()] == ["signed.dcm"]


def test_a_time_stamp_that_proves_nothing_is_not_written(
    signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = OpensslTsa(new_tsa(TSA_CA, content=TsaContent(end=now() - HOUR)), tmp_path / "wrong")
    stranger = OpensslTsa(new_tsa(HospitalCa("Another CA")), tmp_path / "stranger")
    for authority, expected in ((wrong, "time-stamp-certificate-expired"), (stranger, "time-stamp-untrusted")):
        (tmp_path / "anchor.pem").write_bytes(wrong.anchor_file.read_bytes())
        before = signed.read_bytes()
        with time_stamp_server(authority.http) as url:
            code, said = stamp(capsys, "--tsa", url, "--anchor", tmp_path / "anchor.pem", "--in-place", signed)
        assert (code, said["files"][0]["error"]["code"]) == (exits.TIME_STAMP_REFUSED, expected)
        assert signed.read_bytes() == before


def test_an_answer_to_another_query_is_not_written(
    tsa: OpensslTsa, signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The value is the right one, the nonce is that of an earlier query (RFC 3161 2.4.2)."""
    (signature,) = StampableInstance.read(signed.read_bytes()).signatures
    replayed = tsa.http(new_query(signature.value, 1))
    with time_stamp_server(lambda _: replayed) as url:
        code, said = stamp(capsys, "--tsa", url, "--anchor", tsa.anchor_file, "--in-place", signed)

    assert (code, said["files"][0]["error"]["code"]) == (exits.TIME_STAMP_REFUSED, "time-stamp-wrong-nonce")


def test_an_authority_that_does_not_answer_is_asked_once(
    tsa: OpensslTsa, signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with time_stamp_server(tsa.http) as url:
        gone = url
    code, said = stamp(capsys, "--tsa", gone, "--anchor", tsa.anchor_file, "--in-place", signed, tmp_path / "b.dcm")

    assert (code, len(said["files"]), said["not_tried"]) == (exits.UNAVAILABLE, 1, [str(tmp_path / "b.dcm")])


def test_an_authority_without_network_answers_files(
    tsa: OpensslTsa, signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries, target = tmp_path / "queries", tmp_path / "stamped.dcm"
    code, said = stamp(capsys, "--query-directory", queries, signed)
    assert (code, said["files"][0]["signatures"][0]["status"]) == (exits.OK, "query-written")
    back = ("--response-directory", queries, "--anchor", tsa.anchor_file, "-o", target, signed)
    code, said = stamp(capsys, *back)
    assert (code, target.exists()) == (exits.NO_INPUT, False)

    for query in queries.iterdir():
        tsa.response_file(query)
    code, said = stamp(capsys, *back)
    assert (code, said["files"][0]["signatures"][0]["status"]) == (exits.OK, "stamped")
    assert StampableInstance.read(target.read_bytes()).signatures[0].time_stamp


@pytest.mark.parametrize(
    "arguments",
    [
        ("a.dcm",),
        ("--tsa", "http://127.0.0.1:1", "a.dcm", "-o", "b.dcm"),
        ("--tsa", "http://127.0.0.1:1", "--anchor", "ca.pem", "a.dcm"),
        ("--tsa", "http://127.0.0.1:1", "--anchor", "ca.pem", "-o", "b.dcm", "--in-place", "a.dcm"),
        ("--tsa", "http://127.0.0.1:1", "--anchor", "ca.pem", "-o", "c.dcm", "a.dcm", "b.dcm"),
        ("--tsa", "http://127.0.0.1:1", "--anchor", "ca.pem", "--output-directory", "o", "1/a.dcm", "2/a.dcm"),
        ("--tsa", "http://127.0.0.1:1", "--query-directory", "q", "a.dcm"),
    ],
    ids=["no authority", "no anchor", "no place", "two places", "one place", "same names", "two authorities"],
)
def test_what_is_ambiguous_is_refused(arguments: tuple[str, ...]) -> None:
    assert run(["timestamp", *arguments]) == exits.USAGE


def test_an_empty_directory_is_told(tmp_path: Path) -> None:
    assert run(["timestamp", "--query-directory", str(tmp_path / "q"), str(tmp_path)]) == exits.NO_INPUT


def test_nothing_is_replaced_without_force(
    url: str, tsa: OpensslTsa, signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "there.dcm"
    target.write_bytes(b"precious")
    arguments = ("--tsa", url, "--anchor", tsa.anchor_file, "-o", target, signed)

    assert stamp(capsys, *arguments)[0] == exits.OUTPUT
    assert target.read_bytes() == b"precious"
    assert stamp(capsys, "--force", *arguments)[0] == exits.OK
