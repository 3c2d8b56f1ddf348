"""A CA may change its key (RFC 7030 4.1.3, RFC 9810 4.4); nobody else can slip in on that way."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from enroll.anchors import KEPT_LIMIT, KeptAnchors, by_fingerprint
from enroll.csr import DIGITAL_SIGNATURE
from enroll.errors import CertificateRefused, StateError
from enroll.statefile import StateFiles
from enroll.trust import CERTIFICATES_LIMIT
from tests.support.pki import CA_KEY_USAGE, NOW, Content, HospitalCa, new_key

DAY = timedelta(days=1)
TITLE = "Hospital CA"
CA_CONTENT = Content(
    alternative_names=(),
    usage=CA_KEY_USAGE,
    extended_usage=(),
    ca=True,
    begin=datetime(2020, 1, 1, tzinfo=UTC),
    end=datetime(2050, 1, 1, tzinfo=UTC),
)


@pytest.fixture
def anchors(tmp_path: Path) -> KeptAnchors:
    return KeptAnchors(tmp_path / "state" / "anchors", StateFiles())


@pytest.fixture
def old() -> HospitalCa:
    return HospitalCa(TITLE)


@pytest.fixture
def new() -> HospitalCa:
    return HospitalCa(TITLE)


def cross(subject: HospitalCa, issuer: HospitalCa, content: Content = CA_CONTENT) -> x509.Certificate:
    """The key of one CA, certified by another: NewWithOld, OldWithNew."""
    return issuer.issue(subject.key.public_key(), replace(content, subject=subject.name))


def rolled_over(anchors: KeptAnchors, pinned: HospitalCa, *offered: x509.Certificate) -> tuple[x509.Certificate, ...]:
    return anchors.roll_over("est", [pinned.certificate], offered, NOW)


# --- what counts


def test_before_any_roll_over_the_pinned_ones_are_all(anchors: KeptAnchors, old: HospitalCa) -> None:
    assert anchors.read("est", [old.certificate]) == (old.certificate,)
    assert rolled_over(anchors, old, old.certificate) == (old.certificate,)


def test_a_new_certificate_of_the_ca_stands_beside_the_old_one_after_a_restart_too(
    anchors: KeptAnchors, old: HospitalCa, new: HospitalCa, tmp_path: Path
) -> None:
    offered = cross(old, new), new.certificate, cross(new, old), old.certificate

    after = rolled_over(anchors, old, *offered)

    assert after == (old.certificate, new.certificate)
    again = KeptAnchors(tmp_path / "state" / "anchors", StateFiles())
    assert again.read("est", [old.certificate]) == after
    assert rolled_over(again, old, old.certificate) == after  # it stays when it is not offered any more


def test_the_file_is_for_administrators_to_read(
    anchors: KeptAnchors, old: HospitalCa, new: HospitalCa, tmp_path: Path
) -> None:
    rolled_over(anchors, old, cross(new, old), new.certificate)

    (file,) = (tmp_path / "state" / "anchors").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o750


def test_roll_overs_follow_each_other(anchors: KeptAnchors, old: HospitalCa, tmp_path: Path) -> None:
    """A scanner that was off for years gets several at once, in any order."""
    second, third = HospitalCa(TITLE), HospitalCa(TITLE)
    first_step = [cross(second, old), second.certificate]
    second_step = [third.certificate, cross(third, second)]
    expected = (old.certificate, second.certificate, third.certificate)

    assert rolled_over(anchors, old, *first_step) == expected[:2]
    assert rolled_over(anchors, old, *second_step) == expected
    assert rolled_over(KeptAnchors(tmp_path / "was off", StateFiles()), old, *second_step, *first_step) == expected


def test_a_new_certificate_for_the_old_key_is_signed_by_the_old_key(anchors: KeptAnchors, old: HospitalCa) -> None:
    again = HospitalCa(TITLE, key=old.key, end=datetime(2060, 1, 1, tzinfo=UTC))

    assert rolled_over(anchors, old, again.certificate) == (old.certificate, again.certificate)


def test_other_pins_know_nothing_of_it(anchors: KeptAnchors, old: HospitalCa, new: HospitalCa) -> None:
    rolled_over(anchors, old, cross(new, old), new.certificate)
    other = HospitalCa("Other CA").certificate

    assert anchors.read("est", [old.certificate, other]) == (old.certificate, other)
    assert anchors.read("vendor", [old.certificate]) == (old.certificate,)
    assert anchors.read("est", [old.certificate]) == (old.certificate, new.certificate)


def test_the_order_of_the_pins_does_not_matter(anchors: KeptAnchors, old: HospitalCa, new: HospitalCa) -> None:
    other = HospitalCa("Other CA").certificate
    anchors.roll_over("est", [old.certificate, other], [cross(new, old), new.certificate], NOW)

    assert set(anchors.read("est", [other, old.certificate])) == {old.certificate, other, new.certificate}


def test_a_learned_anchor_goes_when_it_expires_and_the_pinned_one_stays(anchors: KeptAnchors, old: HospitalCa) -> None:
    brief = HospitalCa(TITLE, end=NOW + DAY)
    rolled_over(anchors, old, cross(brief, old), brief.certificate)

    after = anchors.roll_over("est", [old.certificate], [old.certificate], NOW + 2 * DAY)

    assert after == anchors.read("est", [old.certificate]) == (old.certificate,)


def test_the_number_of_learned_anchors_is_bounded(anchors: KeptAnchors, old: HospitalCa) -> None:
    many = [HospitalCa(TITLE, end=datetime(2050 + number, 1, 1, tzinfo=UTC)) for number in range(KEPT_LIMIT + 2)]

    for another in many:
        rolled_over(anchors, old, cross(another, old), another.certificate)

    latest = tuple(another.certificate for another in many[-KEPT_LIMIT:])
    assert anchors.read("est", [old.certificate]) == (old.certificate, *latest)


# --- what does not count


def refused_bags(old: HospitalCa, new: HospitalCa) -> dict[str, list[x509.Certificate]]:
    """Bags that a hostile server may send; none makes an anchor."""
    stranger, below = HospitalCa(TITLE), HospitalCa("Department CA", parent=old)
    department = HospitalCa("Department CA", key=below.key)
    weak_key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - this is what is refused
    weak, late = HospitalCa(TITLE, key=weak_key), HospitalCa(TITLE, begin=NOW + DAY)
    over = HospitalCa(TITLE, end=NOW - DAY)
    leaf = HospitalCa(TITLE, ca=False)
    no_signer = HospitalCa(TITLE, usage=DIGITAL_SIGNATURE)
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\x05\x00")

    def proof(**changes: object) -> x509.Certificate:
        return cross(new, old, replace(CA_CONTENT, **changes))  # type: ignore[arg-type]

    return {
        "no proof": [new.certificate],
        "OldWithNew is no proof": [new.certificate, cross(old, new), old.certificate],
        "proof by an untrusted CA of the same name": [new.certificate, cross(new, stranger), stranger.certificate],
        "proof is a leaf": [new.certificate, proof(ca=False)],
        "proof says nothing of being a CA": [new.certificate, proof(ca=None)],
        "proof may not sign certificates": [new.certificate, proof(usage=DIGITAL_SIGNATURE)],
        "proof is over": [new.certificate, proof(end=NOW - DAY)],
        "proof has not begun": [new.certificate, proof(begin=NOW + DAY)],
        "proof is weakly signed": [new.certificate, proof(digest=hashes.SHA224())],
        "proof has an unknown critical extension": [new.certificate, proof(critical_extension=strange)],
        "proof for another key": [new.certificate, cross(stranger, old)],
        "proof for another name": [new.certificate, cross(below, old)],
        "a weak key": [weak.certificate, cross(weak, old)],
        "new one is over": [over.certificate, cross(over, old)],
        "new one has not begun": [late.certificate, cross(late, old)],
        "new one is a leaf": [leaf.certificate, cross(leaf, old)],
        "new one may not sign certificates": [no_signer.certificate, cross(no_signer, old)],
        "the proof alone": [proof()],
        "a CA below that makes itself a root": [department.certificate, below.certificate],
    }


NAMES = list(refused_bags(HospitalCa(TITLE), HospitalCa(TITLE)))


@pytest.mark.parametrize("bag", NAMES)
def test_what_is_not_proved_becomes_no_anchor(
    anchors: KeptAnchors, old: HospitalCa, new: HospitalCa, bag: str, tmp_path: Path
) -> None:
    offered = refused_bags(old, new)[bag]

    assert rolled_over(anchors, old, *offered) == (old.certificate,)
    assert rolled_over(anchors, old, *reversed(offered)) == (old.certificate,)
    assert not (tmp_path / "state").exists()


def test_an_anchor_that_is_over_vouches_for_nobody(anchors: KeptAnchors, new: HospitalCa) -> None:
    over = HospitalCa(TITLE, end=NOW - DAY)

    assert rolled_over(anchors, over, cross(new, over), new.certificate) == (over.certificate,)


def test_a_pinned_leaf_vouches_for_nobody(anchors: KeptAnchors, new: HospitalCa) -> None:
    leaf = HospitalCa(TITLE, ca=False)

    assert rolled_over(anchors, leaf, cross(new, leaf), new.certificate) == (leaf.certificate,)


def test_a_certificate_that_cannot_be_read_hurts_nobody(anchors: KeptAnchors, old: HospitalCa, new: HospitalCa) -> None:
    broken = x509.UnrecognizedExtension(x509.OID_NAME_CONSTRAINTS, b"\x30\x82")
    garbage = cross(new, old, replace(CA_CONTENT, critical_extension=broken))

    after = rolled_over(anchors, old, garbage, cross(new, old), new.certificate)

    assert after == (old.certificate, new.certificate)


def test_a_hundred_certificates_are_not_looked_at(anchors: KeptAnchors, old: HospitalCa, new: HospitalCa) -> None:
    proof = cross(new, old)
    more = [old.issue(new_key().public_key()) for _ in range(CERTIFICATES_LIMIT)]

    with pytest.raises(CertificateRefused, match="more than 10") as caught:
        rolled_over(anchors, old, new.certificate, proof, *more)

    assert caught.value.code == "certificate-too-large"
    assert anchors.read("est", [old.certificate]) == (old.certificate,)


# --- a damaged state


@pytest.mark.parametrize("damage", [b"", b"damaged", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_damage_is_told_with_what_to_do(
    anchors: KeptAnchors, old: HospitalCa, new: HospitalCa, damage: bytes, tmp_path: Path
) -> None:
    rolled_over(anchors, old, cross(new, old), new.certificate)
    (file,) = (tmp_path / "state" / "anchors").iterdir()
    file.write_bytes(damage)

    with pytest.raises(StateError, match=r"est-.*\.pem is damaged.*Remove it"):
        anchors.read("est", [old.certificate])
    with pytest.raises(StateError):
        rolled_over(anchors, old, old.certificate)


# --- first trust by fingerprint


def test_the_fingerprint_from_paper_finds_its_certificate(old: HospitalCa, new: HospitalCa) -> None:
    digits = old.certificate.fingerprint(hashes.SHA256()).hex()
    pairs = [digits[place : place + 2] for place in range(0, 64, 2)]

    for typed in (digits, digits.upper(), ":".join(pairs), " ".join(pairs).upper()):
        assert by_fingerprint([new.certificate, old.certificate], typed) == old.certificate


def test_a_fingerprint_of_nothing_there_is_refused(old: HospitalCa, new: HospitalCa) -> None:
    wanted = old.certificate.fingerprint(hashes.SHA256()).hex()

    for shown in ([], [new.certificate]):
        for typed in (wanted, wanted[:-2], ""):
            with pytest.raises(CertificateRefused, match="Ask the CA's operator") as caught:
                by_fingerprint(shown, typed)
            assert caught.value.code == "anchor-fingerprint"


def test_the_fingerprint_of_a_leaf_makes_no_anchor(old: HospitalCa) -> None:
    leaf = old.issue(new_key().public_key())

    with pytest.raises(CertificateRefused, match="no CA") as caught:
        by_fingerprint([leaf], leaf.fingerprint(hashes.SHA256()).hex())

    assert caught.value.code == "anchor-fingerprint"
