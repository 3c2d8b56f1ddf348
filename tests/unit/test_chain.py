"""Paths through a CA that has changed its key: it keeps its name (RFC 7030 4.1.3, RFC 9810 4.4)."""

from __future__ import annotations

import itertools

import pytest
from cryptography import x509

from enroll.chain import build_chain
from enroll.errors import CertificateRefused
from tests.support.pki import NOW, HospitalCa, new_key

KEY = new_key()
OLD, NEW = HospitalCa("Hospital CA"), HospitalCa("Hospital CA")
BY_OLD, BY_NEW = OLD.issue(KEY.public_key()), NEW.issue(KEY.public_key())


@pytest.mark.parametrize("anchors", list(itertools.permutations([OLD.certificate, NEW.certificate])))
@pytest.mark.parametrize(("leaf", "anchor"), [(BY_OLD, OLD.certificate), (BY_NEW, NEW.certificate)])
def test_both_keys_of_a_ca_are_anchors_in_any_order(
    anchors: tuple[x509.Certificate, ...], leaf: x509.Certificate, anchor: x509.Certificate
) -> None:
    """Neither certificate says which key it holds or was signed with: OpenSSL looks at the first of that name alone."""
    assert build_chain(leaf, (), anchors, NOW) == (leaf, anchor)


@pytest.mark.parametrize("others", list(itertools.permutations(range(2))))
def test_both_keys_of_an_intermediate_may_be_sent_in_any_order(others: tuple[int, ...]) -> None:
    old, new = HospitalCa("Issuing CA", OLD), HospitalCa("Issuing CA", OLD)
    sent = [(old.certificate, new.certificate)[each] for each in others]
    leaf = new.issue(KEY.public_key())

    assert build_chain(leaf, sent, [OLD.certificate], NOW) == (leaf, new.certificate, OLD.certificate)


def test_the_new_root_beside_its_link_to_the_old_one_does_not_hide_that_link() -> None:
    """A CA that was rolled over answers /cacerts with all of them; who has pinned the old key still gets there."""
    old = HospitalCa("Hospital CA", key_identifiers=True)
    new = HospitalCa("Hospital CA", key_identifiers=True)
    link = HospitalCa("Hospital CA", old, new.key, key_identifiers=True).certificate  # NewWithOld
    leaf = new.issue(KEY.public_key(), key_identifiers=True)

    for sent in itertools.permutations([new.certificate, link, old.certificate]):
        assert build_chain(leaf, sent, [old.certificate], NOW) == (leaf, link, old.certificate)


def test_what_is_wrong_is_said_of_the_anchor_that_signed() -> None:
    for anchors in itertools.permutations([HospitalCa("Stranger").certificate, NEW.certificate, OLD.certificate]):
        with pytest.raises(CertificateRefused, match="expired"):
            build_chain(BY_OLD, (), anchors, NOW.replace(year=2030))


def test_without_an_anchor_there_is_no_path() -> None:
    with pytest.raises(CertificateRefused) as refused:
        build_chain(BY_OLD, (), (), NOW)
    assert refused.value.code == "certificate-untrusted"
