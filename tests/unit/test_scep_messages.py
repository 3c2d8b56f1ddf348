"""What SCEP messages say, against a server in this process; openssl makes the envelopes here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import AttributeOID

from enroll.errors import CertificateRefused, ConfigurationError, ProtocolViolation
from enroll.flows.base import Handle, Issued, Pending, Refused
from enroll.flows.scep import WAIT, Progress, syntax
from enroll.flows.scep.authority import read_authority
from enroll.flows.scep.syntax import FAILURES, IssuerAndSubject, MessageType, PkiStatus
from enroll.keystore.base import PrivateKey
from enroll.keystore.keys import RsaPkcs1v15, Scheme, stored_key
from enroll.time_stamp_syntax import decoded, whole
from tests.support.openssl import openssl
from tests.support.pki import NOW, HospitalCa, new_key
from tests.support.scep_answers import (
    CA,
    CA_KEY,
    CERTIFICATE,
    CHALLENGE,
    KEY,
    SERVER,
    Request,
    ScriptedSession,
    Server,
    ca_answer,
    enrollment,
    envelope,
    flow,
    flow_in,
    issue,
    ra_certificate,
    refuse,
    scanner,
    wait,
)

_DER = serialization.Encoding.DER
_RA_KEY = rsa.generate_private_key(65537, 2048)


def usage(**wanted: bool) -> x509.KeyUsage:
    nothing = x509.KeyUsage(*[False] * 9)
    names = [name.removeprefix("_") for name in vars(nothing)]
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names})


RA_SIGNS = ra_certificate(_RA_KEY, usage=usage(digital_signature=True))
RA_OPENS = ra_certificate(_RA_KEY, usage=usage(key_encipherment=True))


def challenge(request: Request) -> bytes:
    return request.csr.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD).value


def sealed_by_openssl(folder: Path, cipher: str) -> Callable[[Request], bytes]:
    def script(request: Request) -> bytes:
        (folder / "in.der").write_bytes(pkcs7.serialize_certificates([CERTIFICATE], _DER))
        (folder / "to.pem").write_bytes(request.certificate.public_bytes(serialization.Encoding.PEM))
        openssl(
            *("cms", "-encrypt", "-binary", cipher, "-in", folder / "in.der", "-outform", "DER"),
            *("-out", folder / "out.der", folder / "to.pem"),
        )
        return SERVER.message(request, PkiStatus.SUCCESS, (folder / "out.der").read_bytes(), {})

    return script


@pytest.mark.parametrize("cipher", ["-aes128", "-aes256"])
def test_an_answer_that_openssl_encrypted_is_opened(cipher: str, tmp_path: Path) -> None:
    """RFC 8894 3.2.2."""
    answer = flow(ScriptedSession(sealed_by_openssl(tmp_path, cipher)), tmp_path).enroll(enrollment())

    assert answer == Issued((CERTIFICATE,))


def test_triple_des_stays_closed(tmp_path: Path) -> None:
    with pytest.raises(ProtocolViolation, match="not encrypted by AES"):
        flow(ScriptedSession(sealed_by_openssl(tmp_path, "-des3")), tmp_path).enroll(enrollment())


def test_a_request_holds_the_challenge_password_and_is_signed_by_the_key_it_is_for(tmp_path: Path) -> None:
    """RFC 8894 2.3, 2.4."""
    session = ScriptedSession(issue)

    flow(session, tmp_path).enroll(enrollment())

    (request,) = session.requests
    assert request.kind == MessageType.PKCS_REQ
    assert challenge(request) == CHALLENGE.encode()
    assert request.csr.is_signature_valid
    assert request.csr.public_key() == request.certificate.public_key() == KEY.public_key()
    key_usage = request.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (key_usage.digital_signature, key_usage.key_encipherment) == (True, True)


class OnlySigns:
    """A store that signs and nothing else."""

    def __call__(self, digest: bytes, scheme: Scheme) -> bytes:
        assert scheme == RsaPkcs1v15("sha256")
        return KEY.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


@pytest.mark.parametrize(
    "key", [new_key(), stored_key(KEY.public_key(), OnlySigns())], ids=["on a curve", "in a store"]
)
def test_another_key_signs_where_the_one_to_be_certified_cannot_decrypt(key: PrivateKey, tmp_path: Path) -> None:
    session = ScriptedSession(issue)

    flow(session, tmp_path).enroll(enrollment(key=key))

    (request,) = session.requests
    assert request.csr.is_signature_valid
    assert request.csr.public_key() == key.public_key() != request.certificate.public_key()


def test_without_a_challenge_password_the_ca_operator_decides(tmp_path: Path) -> None:
    session = ScriptedSession(wait)
    asking = flow_in(scanner(tmp_path, challenge_file=None).context, session)

    assert isinstance(asking.enroll(enrollment()), Pending)
    assert len(list(session.requests[0].csr.attributes)) == 2  # extensions, protection of the key


@pytest.mark.parametrize(("content", "mode"), [("s\u00e9same", 0o600), ("", 0o600), ("sesame", 0o644)])
def test_a_challenge_password_that_cannot_be_used_is_said_before_anything_is_sent(
    content: str, mode: int, tmp_path: Path
) -> None:
    session = ScriptedSession(issue)
    asking = flow(session, tmp_path)
    (tmp_path / "challenge").write_text(content, "utf-8")
    (tmp_path / "challenge").chmod(mode)
    handle = Handle()

    with pytest.raises(ConfigurationError) as refused:
        asking.enroll(enrollment(handle=handle))

    assert not content or content not in str(refused.value)
    assert session.requests == []


# --- waiting: RFC 8894 3.3.3


def test_a_request_that_waits_is_polled_for_after_a_restart(tmp_path: Path) -> None:
    device = scanner(tmp_path)
    first, later = ScriptedSession(wait), ScriptedSession(wait, issue)
    handle = Handle()

    pending = flow_in(device.context, first).enroll(enrollment(handle=handle))
    assert isinstance(pending, Pending)
    assert pending.until == device.clock.now() + WAIT
    restarted = [flow_in(device.context, later).enroll(enrollment(handle=Handle(handle.text))) for _ in range(2)]

    assert isinstance(restarted[0], Pending)
    assert restarted[1] == Issued((CERTIFICATE,))
    assert [request.kind for request in first.requests + later.requests] == [
        MessageType.PKCS_REQ,
        *[MessageType.CERT_POLL] * 2,
    ]
    assert len({request.transaction for request in first.requests + later.requests}) == 1
    asked = decoded(IssuerAndSubject, later.requests[0].content)
    assert whole(asked.issuer) == CA.certificate.subject.public_bytes()
    assert whole(asked.subject) == first.requests[0].csr.subject.public_bytes()


def test_a_key_that_does_not_stay_is_another_one_after_a_restart(tmp_path: Path) -> None:
    """The answer to CertPoll is encrypted to whoever polls."""
    device, key, handle = scanner(tmp_path), new_key(), Handle()
    issued = CA.issue(key.public_key())
    session = ScriptedSession(
        wait, lambda request: SERVER.message(request, PkiStatus.SUCCESS, envelope(request, issued), {})
    )

    answers = [
        flow_in(device.context, session).enroll(enrollment(key=key, handle=Handle(handle.text, handle.keep)))
        for _ in range(2)
    ]

    assert answers[1] == Issued((issued,))
    assert session.requests[0].certificate.public_key() != session.requests[1].certificate.public_key()


def test_a_transaction_that_the_ca_forgot_begins_anew(tmp_path: Path) -> None:
    handle = Handle(Progress("00" * 16, waiting=True).text)
    session = ScriptedSession(refuse("4"), issue)

    answer = flow(session, tmp_path).enroll(enrollment(handle=handle))

    assert answer == Issued((CERTIFICATE,))
    assert [request.kind for request in session.requests] == [MessageType.CERT_POLL, MessageType.PKCS_REQ]
    assert session.requests[0].transaction != session.requests[1].transaction


def test_a_poll_may_be_refused(tmp_path: Path) -> None:
    handle = Handle(Progress("00" * 16, waiting=True).text)

    assert isinstance(flow(ScriptedSession(refuse("2")), tmp_path).enroll(enrollment(handle=handle)), Refused)


def test_the_name_of_a_transaction_is_kept_before_it_is_sent(tmp_path: Path) -> None:
    kept: list[str] = []
    session = ScriptedSession(lambda request: issue(request) if kept else b"")

    flow(session, tmp_path).enroll(enrollment(handle=Handle("", kept.append)))

    progress = Progress.read(kept[0])
    assert progress is not None
    assert session.requests[0].transaction == syntax.printable_string(progress.transaction)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"transaction": 1}', '{"transaction": "x"}', '{"x": 1}'])
def test_a_handle_of_another_flow_is_none(text: str) -> None:
    assert Progress.read(text) is None


# --- refusals: RFC 8894 3.2.1.4


@pytest.mark.parametrize(("code", "name"), FAILURES.items())
def test_each_failure_says_who_must_act(code: str, name: str, tmp_path: Path) -> None:
    answer = flow(ScriptedSession(refuse(code, "no such model")), tmp_path).enroll(enrollment())

    assert isinstance(answer, Refused)
    assert answer.reason == f"{name}: no such model"
    assert answer.who_must_act in ("hospital IT", "CA operator")
    assert answer.advice


# --- whom to believe: RFC 8894 2.2, 4.2.1


def test_an_ra_with_two_certificates_signs_with_one_and_opens_with_the_other(tmp_path: Path) -> None:
    """As NDES."""
    session = ScriptedSession(
        lambda request: Server(_RA_KEY, RA_SIGNS).message(request, "0", envelope(request, CERTIFICATE), {}),
        certificates=[RA_SIGNS, CA.certificate, RA_OPENS],
        own=(_RA_KEY, RA_OPENS),
    )

    answer = flow(session, tmp_path).enroll(enrollment())

    assert isinstance(answer, Issued)
    assert CERTIFICATE in answer.certificates


def test_a_ca_that_issues_below_a_root_reads_requests() -> None:
    root = HospitalCa("Root", key=rsa.generate_private_key(65537, 2048))
    issuing = HospitalCa("Issuing CA", parent=root, key=CA_KEY)

    authority = read_authority(ca_answer(root.certificate, issuing.certificate), [root.certificate], NOW)

    assert authority.recipient == issuing.certificate
    assert authority.issuer == issuing.certificate.subject


def test_a_ca_without_an_rsa_key_cannot_be_written_to() -> None:
    with pytest.raises(CertificateRefused, match="could be encrypted to"):
        read_authority(ca_answer(HospitalCa().certificate), [CA.certificate], NOW)


@pytest.mark.parametrize(
    "capabilities",
    [
        "SCEPStandard",
        "POSTPKIOperation\r\nSHA-256\r\nAES\r\n",
        "aes\nsha-256\npostPKIoperation\nX",
        "POSTPKIOperation\nRenewal\nSHA-512\nSHA-256\nSHA-1\nDES3",  # what NDES is reported to say
    ],
)
def test_what_is_enough(capabilities: str, tmp_path: Path) -> None:
    """RFC 8894 3.5.2: names in any case, SCEPStandard stands for all that is needed. AES need not be announced."""
    assert flow(ScriptedSession(issue, capabilities=capabilities), tmp_path).enroll(enrollment()) == Issued(
        (CERTIFICATE,)
    )


def test_the_remedy_for_a_server_without_sha_256_names_another_way(tmp_path: Path) -> None:
    with pytest.raises(ProtocolViolation) as refused:
        flow(ScriptedSession(issue, capabilities="POSTPKIOperation\nSHA-1\nAES"), tmp_path).enroll(enrollment())

    assert refused.value.what.startswith("The SCEP server does not offer SHA-256,")
    assert "enroll offline" in refused.value.remedy
