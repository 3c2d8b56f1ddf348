"""What is known about the revocation of an own certificate, and what becomes of that: no network."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from enroll.config import RevocationSettings
from enroll.errors import CertificateRefused, CertificateRevoked, StateDamaged
from enroll.identity import Generation, IdentityName
from enroll.keystore.base import Protection
from enroll.revocation.lists import Revocation
from enroll.revocation.record import RevocationRecord, RevocationRecords, RevocationState
from enroll.revocation.watch import ADDRESSES_LIMIT, Places
from tests.support.agent_process import Scanner, new_scanner
from tests.support.pki import new_key
from tests.support.records import rewrite
from tests.support.revocation_records import HOLD, HOUR, NOW, STOLEN, after, noted
from tests.support.revoking_ca import RevokingCa

UNKNOWN = RevocationRecord(1, "1f", NOW)
GOOD, REVOKED, HELD = after(UNKNOWN, None), after(UNKNOWN, STOLEN), after(UNKNOWN, HOLD)


@pytest.mark.parametrize("before", [UNKNOWN, GOOD, HELD, REVOKED])
@pytest.mark.parametrize("since", [NOW - 99 * HOUR, NOW, NOW + HOUR])
def test_a_revocation_for_good_counts_whenever_it_was_said(before: RevocationRecord, since: datetime) -> None:
    assert after(before, STOLEN, since).state is RevocationState.REVOKED


@pytest.mark.parametrize("since", [NOW - HOUR, NOW, NOW + 99 * HOUR])
@pytest.mark.parametrize("then", [None, HOLD])
def test_nothing_takes_a_revocation_for_good_back(since: datetime, then: Revocation | None) -> None:
    """RFC 5280 5.3.1: only certificateHold can be lifted."""
    assert after(REVOKED, then, since).revocation == STOLEN


def test_a_hold_is_lifted_by_what_the_ca_said_later_and_by_nothing_else() -> None:
    assert after(HELD, None, NOW + HOUR).state is RevocationState.GOOD
    assert after(HELD, None, NOW).state is RevocationState.REVOKED
    assert after(HELD, None, NOW - HOUR).state is RevocationState.REVOKED


def test_an_older_hold_does_not_stop_what_was_good_since() -> None:
    assert after(GOOD, HOLD, NOW - HOUR).state is RevocationState.GOOD
    assert after(GOOD, HOLD, NOW + HOUR).state is RevocationState.REVOKED


@pytest.mark.parametrize("before", [UNKNOWN, GOOD, HELD, REVOKED])
def test_no_answer_leaves_what_was_known(before: RevocationRecord) -> None:
    record = before.without_answer("nobody\x1b[2J answers", NOW + HOUR)

    assert (record.state, record.revocation, record.as_of) == (before.state, before.revocation, before.as_of)
    assert record.problem == "nobody [2J answers"


def test_what_was_good_becomes_unknown_after_a_while_and_what_was_revoked_does_not() -> None:
    week, later = timedelta(days=7), NOW + timedelta(days=8)
    assert GOOD.standing(NOW + HOUR, week) is RevocationState.GOOD
    assert GOOD.without_answer("nothing", later).standing(later, week) is RevocationState.UNKNOWN
    assert REVOKED.standing(later, week) is RevocationState.REVOKED
    assert UNKNOWN.standing(NOW, week) is RevocationState.UNKNOWN


@pytest.mark.parametrize("reason", ["superseded", "cessationOfOperation"])
def test_what_the_ca_has_replaced_is_renewed_without_a_person(reason: str) -> None:
    assert after(UNKNOWN, Revocation(NOW, reason)).replaced_by_itself


@pytest.mark.parametrize("reason", [each.value for each in x509.ReasonFlags] + [""])
def test_any_other_reason_needs_a_person(reason: str) -> None:
    if reason not in {"superseded", "cessationOfOperation"}:
        assert not after(UNKNOWN, Revocation(NOW, reason)).replaced_by_itself


# --- what is durable


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.audit_file.parent.mkdir()
        yield scanner


@pytest.mark.parametrize("revocation", [None, STOLEN, HOLD, Revocation(NOW)])
def test_what_is_known_is_read_as_it_was_written(scanner: Scanner, revocation: Revocation | None) -> None:
    generation = scanner.enroll()
    records = RevocationRecords(scanner.identities)
    assert records.of(generation) is None
    noted(scanner, generation, revocation)

    record = records.of(generation)
    assert record is not None
    assert (record.revocation, record.as_of, record.source) == (revocation, NOW, "http://ca")


def test_it_says_nothing_of_another_generation(scanner: Scanner) -> None:
    noted(scanner, scanner.enroll(), STOLEN)

    assert RevocationRecords(scanner.identities).of(scanner.enroll()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"state": "fine"},
        {"generation": "0"},
        {"generation": "x"},
        {"checked_at": ""},
        {"revoked_at": ""},
        {"as_of": "yesterday"},
        {"as_of": "2026-11-22T12:00:00"},
        {"serial": 1},
        {"more": ""},
    ],
)
def test_a_damaged_record_is_no_answer(scanner: Scanner, change: dict[str, object]) -> None:
    generation = scanner.enroll()
    noted(scanner, generation, STOLEN)
    directory = scanner.identities.directory(IdentityName.SIGNING)
    for path in (directory / "revocation.json", directory / "revoked" / "0001.json"):
        rewrite(path, **change)

    with pytest.raises(StateDamaged):
        RevocationRecords(scanner.identities).of(generation)
    assert not RevocationRecords(scanner.identities).calls_for_renewal(IdentityName.SIGNING)


@pytest.mark.parametrize("name", ["revocation.json", "revoked/0001.json"])
def test_one_damaged_file_makes_nobody_forget_a_revocation(scanner: Scanner, name: str) -> None:
    generation = scanner.enroll()
    noted(scanner, generation, STOLEN)
    (scanner.identities.directory(IdentityName.SIGNING) / name).write_text("")

    record = RevocationRecords(scanner.identities).of(generation)

    assert record is not None
    assert record.state is RevocationState.REVOKED


@pytest.mark.parametrize("said", [STOLEN, HOLD], ids=["stolen", "on hold"])
def test_a_run_that_is_cut_off_between_the_two_files_makes_nobody_forget_a_revocation(
    scanner: Scanner, said: Revocation
) -> None:
    """Also where the CA said both of the same moment."""
    generation = scanner.enroll()
    directory = scanner.identities.directory(IdentityName.SIGNING)
    noted(scanner, generation, None)
    before = (directory / "revocation.json").read_bytes()
    noted(scanner, generation, said)
    (directory / "revocation.json").write_bytes(before)

    record = RevocationRecords(scanner.identities).of(generation)

    assert record is not None
    assert record.state is RevocationState.REVOKED


def test_a_run_that_is_cut_off_between_the_two_files_makes_nobody_forget_that_a_hold_is_lifted(
    scanner: Scanner,
) -> None:
    generation = scanner.enroll()
    kept = scanner.identities.directory(IdentityName.SIGNING) / "revoked" / "0001.json"
    noted(scanner, generation, HOLD)
    before = kept.read_bytes()
    noted(scanner, generation, None, later=True)
    kept.write_bytes(before)

    record = RevocationRecords(scanner.identities).of(generation)

    assert record is not None
    assert record.state is RevocationState.GOOD


def test_a_generation_that_was_revoked_is_so_after_the_next_one_is_known_to_be_good(scanner: Scanner) -> None:
    """It may come into use again, where the next one is damaged."""
    revoked = scanner.enroll()
    noted(scanner, revoked, STOLEN)
    noted(scanner, scanner.enroll(), None)

    record = RevocationRecords(scanner.identities).of(revoked)

    assert record is not None
    assert record.state is RevocationState.REVOKED


def test_a_hold_that_is_lifted_is_forgotten_in_both_files(scanner: Scanner) -> None:
    generation = scanner.enroll()
    noted(scanner, generation, HOLD)
    noted(scanner, generation, None, later=True)
    (scanner.identities.directory(IdentityName.SIGNING) / "revocation.json").unlink()

    assert RevocationRecords(scanner.identities).of(generation) is None


def test_a_revoked_certificate_proves_nothing(scanner: Scanner) -> None:
    generation, records = scanner.enroll(), RevocationRecords(scanner.identities)
    records.check_not_revoked(generation)
    noted(scanner, generation, None)
    records.check_not_revoked(generation)
    noted(scanner, generation, STOLEN)

    with pytest.raises(CertificateRefused) as refused:
        records.check_not_revoked(generation)
    assert refused.value.code == "certificate-revoked"


def test_a_revocation_calls_for_renewal_or_for_a_person(scanner: Scanner) -> None:
    records = RevocationRecords(scanner.identities)
    assert not records.calls_for_renewal(IdentityName.SIGNING)
    noted(scanner, scanner.enroll(), Revocation(NOW, "superseded"))
    assert records.calls_for_renewal(IdentityName.SIGNING)
    noted(scanner, scanner.enroll(), STOLEN)
    with pytest.raises(CertificateRevoked) as revoked:
        records.calls_for_renewal(IdentityName.SIGNING)
    assert revoked.value.who_must_act == "CA operator"
    assert "enrolls again" in revoked.value.what_next


# --- where is asked


def places(
    folder: Path, identity: IdentityName, settings: RevocationSettings, responder: str = "", list_at: str = ""
) -> Places:
    certificate = RevokingCa(folder / "ca").issue(new_key().public_key(), responder=responder, list_at=list_at)
    return Places.of(Generation(identity, 1, certificate, (), "software:x", Protection.SOFTWARE, "est", NOW), settings)


OWN = RevocationSettings(ocsp_url="http://own/ocsp", crl_url="http://own/list")


def test_the_certificate_says_where_and_the_configuration_adds_to_it(tmp_path: Path) -> None:
    """RFC 5280 4.2.1.13 and 4.2.2.1."""
    found = places(tmp_path, IdentityName.SIGNING, OWN, responder="http://ca/ocsp", list_at="http://ca/list")

    assert found == Places(("http://own/ocsp", "http://ca/ocsp"), ("http://own/list", "http://ca/list"))


def test_the_vendor_s_certificates_are_not_asked_about_at_the_owner_s_ca(tmp_path: Path) -> None:
    assert not places(tmp_path, IdentityName.VENDOR, OWN)


@pytest.mark.parametrize("url", ["ldap:///CN=list", "file:///etc/shadow", "http://", "http://[", "HTTP", "http://a b"])
def test_what_http_cannot_fetch_is_left_aside(tmp_path: Path, url: str) -> None:
    assert not places(tmp_path, IdentityName.SIGNING, RevocationSettings(), responder=url, list_at=url)


def test_a_certificate_cannot_send_the_enroller_to_a_hundred_places(tmp_path: Path) -> None:
    key, ca = new_key(), RevokingCa(tmp_path / "ca")
    points = [
        x509.DistributionPoint([x509.UniformResourceIdentifier(f"http://host-{number}/")], None, None, None)
        for number in range(100)
    ]
    extension = x509.CRLDistributionPoints(points)
    certificate = ca.issue(key.public_key(), more=[extension])
    generation = Generation(IdentityName.SIGNING, 1, certificate, (), "", Protection.SOFTWARE, "est", NOW)

    assert len(Places.of(generation, RevocationSettings()).lists) == ADDRESSES_LIMIT
    assert "http://own/list" in Places.of(generation, OWN).lists
