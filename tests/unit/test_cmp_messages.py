"""The bodies of CMP messages: RFC 9810 5.2.3, 5.3.18, RFC 4211."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from pyasn1.codec.der import decoder, encoder
from pyasn1_alt_modules import rfc9810

from enroll import csr
from enroll.flows.cmp import messages
from enroll.flows.cmp.messages import Rejected, Waiting
from enroll.flows.cmp.syntax import Body, RevRepContent
from enroll.keystore.base import PrivateKey
from enroll.time_stamp_syntax import encoded
from tests.support.cmp_answers import CA, CERTIFICATE, KEY, error, status
from tests.support.cmp_server import parsed_template
from tests.support.pki import NOW, REQUEST

RSA_KEY = rsa.generate_private_key(65537, 2048)
P_384 = ec.generate_private_key(ec.SECP384R1())
OTHER_READER = rfc9810.rfc4211


def rejected(bit: int) -> Rejected:
    failures = bytes(0x80 >> bit % 8 if octet == bit // 8 else 0 for octet in range(bit // 8 + 1))
    told = messages.read_issued(Body.ERROR, error(status(2, failures=failures)))
    assert isinstance(told, Rejected)
    return told


def test_every_failure_has_the_name_that_the_rfc_gives_it() -> None:
    """RFC 9810 5.2.3, as pyasn1 has it."""
    names = {value: str(name) for name, value in rfc9810.PKIFailureInfo.namedValues.items()}

    assert {bit: rejected(bit).failures for bit in names} == {bit: (name,) for bit, name in names.items()}


@pytest.mark.parametrize("bit", range(27))
def test_every_refusal_says_who_must_act_and_what_to_do(bit: int) -> None:
    refused = rejected(bit).refused()

    assert refused.reason
    assert refused.who_must_act in {"CA operator", "hospital IT"}
    assert refused.advice


def test_a_refusal_without_a_reason_is_one_too() -> None:
    told = messages.read_issued(Body.ERROR, error(status(2)))

    assert isinstance(told, Rejected)
    assert told.refused().reason == "status 2"


def revoked(number: int) -> object:
    """What rp with this status says."""
    return messages.read_revoked(Body.RP, encoded(RevRepContent(status=[status(number)], rev_certs=None, crls=None)))


@pytest.mark.parametrize("number", [0, 1, 4, 5])
def test_a_certificate_is_revoked_where_the_ca_says_so_in_one_of_four_ways(number: int) -> None:
    """RFC 9810 5.2.3: accepted, grantedWithMods, revocationWarning (is imminent), revocationNotification."""
    assert revoked(number) is None


def test_a_revocation_that_waits_is_no_refusal() -> None:
    assert isinstance(revoked(3), Waiting)
    assert isinstance(revoked(2), Rejected)
    assert isinstance(revoked(6), Rejected)


@pytest.mark.parametrize("key", [KEY, P_384, RSA_KEY], ids=["p-256", "p-384", "rsa-2048"])
def test_the_template_repeats_the_pkcs10(key: PrivateKey) -> None:
    """RFC 9483 4.1.1; read by pyasn1."""
    signed = csr.build(key, REQUEST)

    seen = parsed_template(_read(messages.certificate_request(signed, key, None)))

    assert seen.subject == signed.subject
    assert list(seen.extensions) == list(signed.extensions)
    assert _encoded(seen.public_key) == _encoded(key.public_key())
    assert seen.renews is None


@pytest.mark.parametrize("key", [KEY, P_384, RSA_KEY], ids=["p-256", "p-384", "rsa-2048"])
def test_the_key_proves_its_possession_over_the_request(key: PrivateKey) -> None:
    """RFC 4211 4.1."""
    request = _read(messages.certificate_request(csr.build(key, REQUEST), key, None))

    proof = request["popo"]["signature"]
    _verify(key, bytes(proof["signature"].asOctets()), encoder.encode(request["certReq"]))


def test_a_renewal_names_what_it_replaces() -> None:
    """RFC 4211 6.5."""
    request = _read(messages.certificate_request(csr.build(KEY, REQUEST, CERTIFICATE), KEY, CERTIFICATE))

    assert parsed_template(request).renews == (CERTIFICATE.issuer, CERTIFICATE.serial_number)


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda each: each.name)
def test_a_certificate_is_confirmed_by_the_hash_of_its_signature(digest: hashes.HashAlgorithm) -> None:
    """RFC 9810 5.3.18."""
    certificate = CA.issue(KEY.public_key(), digest=digest)

    assert messages.fingerprint(certificate) == (certificate.fingerprint(digest), False)


def test_where_its_signature_has_no_hash_that_is_named() -> None:
    key: Any = ed25519.Ed25519PrivateKey.generate()
    builder = x509.CertificateBuilder(CA.name, REQUEST.subject, KEY.public_key(), 1, NOW, NOW + timedelta(days=1))
    certificate = builder.sign(key, None)

    digest, named = messages.fingerprint(certificate)
    told = messages.confirmation(digest, 0, hash_named=named, accepted=False)

    assert digest == certificate.fingerprint(hashes.SHA256())
    (confirmed,), rest = decoder.decode(told, asn1Spec=rfc9810.CertConfirmContent())
    assert not rest
    assert str(confirmed["hashAlg"]["algorithm"]) == "2.16.840.1.101.3.4.2.1"


@pytest.mark.parametrize("accepted", [True, False])
def test_a_confirmation_says_whether_the_certificate_is_used(accepted: bool) -> None:  # noqa: FBT001 - a parameter
    told = messages.confirmation(b"h" * 32, -1, hash_named=False, accepted=accepted)

    (confirmed,), rest = decoder.decode(told, asn1Spec=rfc9810.CertConfirmContent())
    assert not rest
    assert bytes(confirmed["certHash"]) == b"h" * 32
    assert int(confirmed["certReqId"]) == -1
    assert int(confirmed["statusInfo"]["status"]) == (0 if accepted else 2)
    assert not confirmed["hashAlg"].isValue


def test_a_revocation_names_the_certificate_and_the_reason() -> None:
    """RFC 9483 4.2."""
    told = messages.revocation(CERTIFICATE, x509.ReasonFlags.key_compromise)

    (details,), rest = decoder.decode(told, asn1Spec=rfc9810.RevReqContent())
    assert not rest
    assert int(details["certDetails"]["serialNumber"]) == CERTIFICATE.serial_number
    assert bytes(details["crlEntryDetails"][0]["extnValue"]) == bytes.fromhex("0a0101")


def _read(content: bytes) -> Any:
    (request,), rest = decoder.decode(content, asn1Spec=OTHER_READER.CertReqMessages())
    assert not rest
    return request


def _encoded(key: Any) -> bytes:
    der: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return der


def _verify(key: PrivateKey, signature: bytes, data: bytes) -> None:
    public_key = key.public_key()
    if isinstance(public_key, rsa.RSAPublicKey):
        public_key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    else:
        public_key.verify(signature, data, ec.ECDSA(hashes.SHA384() if key is P_384 else hashes.SHA256()))
