"""A request that the keyholder offers: read strictly, and sent only if it is what this identity asks for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from enroll.algorithms import KeyAlgorithm
from enroll.config import SigningIdentitySettings, StoreName
from enroll.csr import CertificateRequest, Usage, build
from enroll.errors import StateError
from enroll.keystore.base import PrivateKey, Protection
from enroll.offer import FILE_NAME, PERIOD_MARGIN, Offer, check_offer, read_offer, write_offer
from enroll.statefile import StateFiles
from tests.support.pki import DEVICE, NOW, REQUEST, HospitalCa, new_key
from tests.support.records import rewrite, values_of

FILES = StateFiles()
KEY = new_key()
PERIOD = (NOW - timedelta(minutes=5), NOW + timedelta(days=7))
WANTED = SigningIdentitySettings(key_store=StoreName.MEMORY, key_algorithm=KeyAlgorithm.P_256, key_lifetime=7)


def offered(key: PrivateKey = KEY, request: CertificateRequest = REQUEST, **changes: Any) -> Offer:
    changes = {"usage_period": PERIOD, "protection": Protection.MEMORY, **changes}
    return Offer("memory:signing-1", build(key, request, **changes))


def test_an_offer_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_offer(offered(), tmp_path / "pending", FILES)

    assert read_offer(tmp_path / "pending", FILES) == offered_in(tmp_path / "pending")
    assert read_offer(tmp_path / "elsewhere", FILES) is None


def offered_in(pending: Path) -> Offer:
    record = values_of(pending / FILE_NAME)
    return Offer(record["key_uri"], x509.load_pem_x509_csr(record["request"].encode()))


# --- damage


def pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode()


def forged() -> str:
    """A request whose signature is of another one."""
    data = bytearray(offered().request.public_bytes(serialization.Encoding.DER))
    data[data.index(b"CT-000123")] ^= 1
    return pem(x509.load_der_x509_csr(bytes(data)))


def of_an_edwards_curve() -> str:
    builder = x509.CertificateSigningRequestBuilder(REQUEST.subject)
    return pem(builder.sign(ed25519.Ed25519PrivateKey.generate(), None))


def with_damaged_period() -> str:
    builder = x509.CertificateSigningRequestBuilder(REQUEST.subject)
    damaged = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.16"), b"\x30\x00")
    return pem(builder.add_extension(damaged, critical=False).sign(KEY, hashes.SHA256()))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"key_uri": "software:signing-1"}, id="a key of another store"),
        pytest.param({"key_uri": "memory"}, id="no name"),
        pytest.param({"key_uri": "memory:../../signing"}, id="a path"),
        pytest.param({"key_uri": "memory:signing\nmemory:other"}, id="two lines"),
        pytest.param({"request": ""}, id="no request"),
        pytest.param({"request": "\u00fc"}, id="not ASCII"),
        pytest.param({"request": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"}),
        pytest.param({"request": forged()}, id="signed by another key"),
        pytest.param({"request": of_an_edwards_curve()}, id="a kind of key that is never made"),
        pytest.param({"request": with_damaged_period()}, id="RFC 3280 4.2.1.4: an empty period"),
        pytest.param({"more": "x"}, id="another field"),
    ],
)
def test_a_damaged_offer_is_a_state_error(tmp_path: Path, changes: dict[str, str]) -> None:
    write_offer(offered(), tmp_path, FILES)
    rewrite(tmp_path / FILE_NAME, **changes)

    with pytest.raises(StateError, match=r"offer\.json is damaged"):
        read_offer(tmp_path, FILES)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"x" * 20_000, b"[" * 10_000])
def test_an_offer_that_is_no_record_is_a_state_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(data)

    with pytest.raises(StateError):
        read_offer(tmp_path, FILES)


def test_a_link_in_the_place_of_an_offer_is_not_followed(tmp_path: Path) -> None:
    write_offer(offered(), tmp_path / "other", FILES)
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "other" / FILE_NAME)

    with pytest.raises(StateError):
        read_offer(tmp_path, FILES)


def test_an_offer_that_is_taken_back_while_it_is_read_is_none(tmp_path: Path) -> None:
    write_offer(offered(), tmp_path, FILES)

    class TakenBack(StateFiles):
        def read(self, path: Path, *limits: Any, **options: Any) -> bytes:
            path.unlink()
            return super().read(path, *limits, **options)

    assert read_offer(tmp_path, TakenBack()) is None


# --- what is sent


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (KEY, KeyAlgorithm.P_256),
        (ec.generate_private_key(ec.SECP384R1()), KeyAlgorithm.P_384),
        (rsa.generate_private_key(65537, 2048), KeyAlgorithm.RSA_2048),
    ],
)
def test_what_the_keyholder_makes_is_sent(key: PrivateKey, algorithm: KeyAlgorithm) -> None:
    check_offer(offered(key), REQUEST, replace(WANTED, key_algorithm=algorithm))


def test_a_scanner_without_a_hardware_type_is_served_as_well() -> None:
    request = CertificateRequest.for_device(replace(DEVICE, hardware_type=""), Usage.SIGNING)

    check_offer(offered(request=request), request, WANTED)


def by_hand(*, more: x509.ExtensionType | None = None, attribute: tuple[str, bytes] | None = None) -> Offer:
    """What `build` makes, and something more."""
    model = offered().request
    builder = x509.CertificateSigningRequestBuilder(model.subject)
    for extension in model.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    if more:
        builder = builder.add_extension(more, critical=False)
    for stated in model.attributes:
        if stated.oid == NameOID.UNSTRUCTURED_NAME:
            builder = builder.add_attribute(stated.oid, stated.value)
    if attribute:
        builder = builder.add_attribute(x509.ObjectIdentifier(attribute[0]), attribute[1])
    return Offer("memory:signing-1", builder.sign(KEY, hashes.SHA256()))


def test_the_extra_of_the_next_test_is_what_is_refused() -> None:
    check_offer(by_hand(), REQUEST, WANTED)


OTHER_DEVICE = replace(DEVICE, serial_number="CT-000124")
LONG = PERIOD[0] + timedelta(days=7) + PERIOD_MARGIN + timedelta(seconds=1)


@pytest.mark.parametrize(
    "offer",
    [
        pytest.param(offered(request=CertificateRequest.for_device(DEVICE, Usage.DEVICE)), id="of the device identity"),
        pytest.param(offered(request=CertificateRequest.for_device(DEVICE, Usage.SYNTHESIS)), id="of another role"),
        pytest.param(offered(request=CertificateRequest.for_device(OTHER_DEVICE, Usage.SIGNING)), id="other scanner"),
        pytest.param(offered(request=replace(REQUEST, common_name="x")), id="another name"),
        pytest.param(offered(request=replace(REQUEST, hardware_type="")), id="no hardware type"),
        pytest.param(offered(protection=Protection.HARDWARE), id="claims hardware"),
        pytest.param(offered(protection=Protection.SOFTWARE), id="says software"),
        pytest.param(offered(usage_period=None), id="no usage period"),
        pytest.param(offered(usage_period=(PERIOD[0], LONG)), id="a usage period that is too long"),
        pytest.param(offered(ec.generate_private_key(ec.SECP384R1())), id="another kind of key"),
        pytest.param(offered(rsa.generate_private_key(3, 2048)), id="RSA with another exponent"),
        pytest.param(by_hand(more=x509.BasicConstraints(ca=True, path_length=None)), id="a CA"),
        pytest.param(by_hand(more=x509.SubjectKeyIdentifier(b"x")), id="one extension more"),
        pytest.param(by_hand(attribute=("1.2.840.113549.1.9.7", b"secret")), id="a challenge password"),
        pytest.param(by_hand(attribute=("1.2.840.113549.1.9.14", b"x")), id="RFC 2985 5.4.2: other extensions"),
    ],
)
def test_anything_else_is_not_sent(offer: Offer) -> None:
    with pytest.raises(StateError) as refusal:
        check_offer(offer, REQUEST, WANTED)

    assert refusal.value.code == "offer-unfit"
    assert "Restart the agent" in refusal.value.remedy


def test_an_offer_is_over_when_its_key_has_a_certificate_or_its_time_has_passed() -> None:
    ca = HospitalCa()
    certified, other = ca.issue(KEY.public_key()), ca.issue(new_key().public_key())

    assert offered().is_over(certified, NOW)
    assert not offered().is_over(other, NOW)
    assert not offered().is_over(None, PERIOD[1])
    assert offered().is_over(None, PERIOD[1] + timedelta(seconds=1))
