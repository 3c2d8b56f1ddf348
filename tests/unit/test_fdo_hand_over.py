"""How a certificate that came by FDO is renewed: as scanseal.toml says, otherwise as the owner said (ADR 33)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enroll.algorithms import HmacAlgorithm
from enroll.certificates import pem, read_certificates
from enroll.config import EnrollSettings, StoreName
from enroll.enroller import Enroller
from enroll.errors import StateError
from enroll.fdo import cbor
from enroll.fdo.credential import CredentialStore, DeviceCredential, Owner
from enroll.fdo.fault import Fault
from enroll.fdo.hand_over import Renewal, RenewalModule, anchors_file, renewal_flow, with_hand_over, write_anchors
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import KeyType
from enroll.flows.settings import AcmeSettings, CmpSettings, EstSettings, FdoRenewal, FdoSettings, FlowName
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
from tests.support.clocks import SteppedClock
from tests.support.enrolling import settings
from tests.support.fdo import reference_codec as codec
from tests.support.pki import HospitalCa

CA = HospitalCa()
FILES = StateFiles()
URL = "https://ca.hospital.example:8443/path"
OWNER = Owner("a" * 64, "b" * 64, (CA.certificate,))


def said(flow: FlowName = FlowName.CMP, url: str = URL, label: str = "") -> str:
    return Renewal(flow, url, label).text


class Onboarded:
    """A scanner whose owner has said something."""

    def __init__(self, folder: Path, renewal: str = "", **tables: Any) -> None:
        self.plain = replace(settings(folder), **tables)
        stores = KeyStores(self.plain.keystore, self.plain.state_directory, FILES)
        secret = stores.generate_secret(StoreName.SOFTWARE, "fdo-hmac", HmacAlgorithm.SHA256)
        self.credentials = CredentialStore(self.plain.state_directory / "fdo", stores, FILES)
        self.owner = replace(OWNER, renewal=renewal)
        self.credential = DeviceCredential(
            bytes(16),
            cbor.Raw(cbor.encode([])),
            "Example CT",
            Hash.of(HashAlgorithm.SHA256, b""),
            KeyType.SECP256R1,
            None,
            "software:fdo",
            secret,
            HashAlgorithm.HMAC_SHA256,
            self.owner,
        )
        self.credentials.commit(self.credential)
        write_anchors(self.owner, self.plain.state_directory, FILES)

    @property
    def completed(self) -> EnrollSettings:
        return with_hand_over(self.plain, FILES)

    @property
    def anchors(self) -> Path:
        return anchors_file(self.plain.state_directory)


# --- the module


def hear(*values: Any, name: str = "renewal") -> Renewal | None:
    module = RenewalModule()
    for value in values:
        assert module.receive(name, cbor.read(codec.write(value))) == []
    return module.renewal


@pytest.mark.parametrize(
    ("flow", "url", "label"),
    [
        ("est", "https://est.example", "scanners"),
        ("est", "https://est.example:8443/", ""),
        ("acme", "https://acme.example/directory", ""),
        ("cmp", "https://cmp.example/.well-known/cmp", ""),
    ],
)
def test_an_owner_says_where_renewals_go(flow: str, url: str, label: str) -> None:
    assert hear([flow, url, label]) == Renewal(FlowName(flow), url, label)
    assert RenewalModule().is_complete
    assert RenewalModule().begin() == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        "est",
        [],
        ["est", "https://est.example"],
        ["est", "https://est.example", "", ""],
        ["scep", "https://scep.example", ""],
        ["offline", "https://x.example", ""],
        ["fdo", "https://x.example", ""],
        ["EST", "https://est.example", ""],
        ["est", "", ""],
        ["est", "http://est.example", ""],
        ["est", "https://somebody:secret@est.example", ""],
        ["est", "https://est.example\x1b[2K", ""],
        ["est", "https://\u202eelpmaxe.tse", ""],
        ["cmp", "http://cmp.example/", ""],
        ["acme", "file:///etc/passwd", ""],
        ["est", "HTTPS://est.example", ""],
        ["est", "https://user:secret@est.example", ""],
        ["est", "https://est.example/a?b", ""],
        ["est", "https://est.example\n[fdo]", ""],
        ["est", "https://" + "a" * 1024, ""],
        ["est", "https://est.example", "../x"],
        ["est", "https://est.example", "a" * 65],
        ["est", b"https://est.example", ""],
    ],
)
def test_what_could_not_stand_in_the_configuration_is_refused(value: Any) -> None:
    """Plain HTTP neither, which nobody here has agreed to."""
    with pytest.raises(Fault):
        hear(value)


def test_the_module_knows_nothing_else() -> None:
    with pytest.raises(Fault):
        hear(["est", "https://est.example", ""], name="password")


# --- the way


@pytest.mark.parametrize("flow", [FlowName.EST, FlowName.ACME, FlowName.CMP])
def test_the_renewal_goes_as_the_owner_says(tmp_path: Path, flow: FlowName) -> None:
    assert renewal_flow(Onboarded(tmp_path, said(flow)).plain, FILES) is flow


def test_the_configuration_comes_first(tmp_path: Path) -> None:
    scanner = Onboarded(tmp_path, said(FlowName.CMP), fdo=FdoSettings(renewal=FdoRenewal.ACME))

    assert renewal_flow(scanner.plain, FILES) is FlowName.ACME
    assert scanner.completed.acme == AcmeSettings(anchor_file=scanner.anchors)
    assert scanner.completed.cmp == CmpSettings()


def test_where_nobody_says_anything_there_is_no_way(tmp_path: Path) -> None:
    scanner = Onboarded(tmp_path)

    assert renewal_flow(scanner.plain, FILES) is None
    assert scanner.completed == scanner.plain


def test_a_scanner_without_an_owner_has_the_configuration_and_nothing_else(tmp_path: Path) -> None:
    plain = settings(tmp_path)
    assert (renewal_flow(plain, FILES), with_hand_over(plain, FILES)) == (None, plain)
    scanner = Onboarded(tmp_path, said())
    scanner.credentials.release()

    assert scanner.completed == scanner.plain


# --- the settings


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        (FlowName.EST, EstSettings(url=URL, label="x")),
        (FlowName.ACME, AcmeSettings(directory_url=URL)),
        (FlowName.CMP, CmpSettings(url=URL)),
    ],
)
def test_address_and_anchors_are_what_the_owner_said(tmp_path: Path, flow: FlowName, expected: Any) -> None:
    scanner = Onboarded(tmp_path, said(flow, label="x"))

    assert getattr(scanner.completed, flow) == replace(expected, anchor_file=scanner.anchors)
    assert read_certificates(scanner.anchors, FILES) == (CA.certificate,)


def test_what_stands_in_the_configuration_stays(tmp_path: Path) -> None:
    stands = EstSettings(url="https://est.example", anchor_file=Path("/ca.pem"))
    scanner = Onboarded(tmp_path, said(FlowName.EST, label="x"), est=stands)

    assert scanner.completed == scanner.plain


def test_a_label_belongs_to_the_address_that_it_was_said_with(tmp_path: Path) -> None:
    scanner = Onboarded(tmp_path, said(FlowName.EST, label="x"), est=EstSettings(label="mine"))

    assert scanner.completed.est == EstSettings(url=URL, label="mine", anchor_file=scanner.anchors)


def test_an_anchor_that_is_pinned_by_its_fingerprint_stays_the_only_one(tmp_path: Path) -> None:
    scanner = Onboarded(tmp_path, said(FlowName.EST), est=EstSettings(anchor_fingerprint="ab" * 32))

    assert scanner.completed.est == EstSettings(url=URL, anchor_fingerprint="ab" * 32)


def test_the_anchors_that_onboarding_is_held_to_hold_for_renewals_as_well(tmp_path: Path) -> None:
    """What the owner brings is not trusted where the configuration names something else."""
    pinned = tmp_path / "pinned.pem"
    pinned.write_bytes(pem([HospitalCa().certificate]))
    scanner = Onboarded(tmp_path, said(FlowName.CMP), fdo=FdoSettings(anchor_file=pinned))

    assert scanner.completed.cmp.anchor_file == pinned


def test_the_enroller_works_with_the_completed_settings(tmp_path: Path) -> None:
    scanner = Onboarded(tmp_path, said())

    with Enroller.configured(scanner.plain, SteppedClock(), FILES) as enroller:
        assert enroller.context.settings == scanner.completed


# --- damage


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"flow": "est"}', '{"flow": "scep", "url": "x", "label": ""}'])
def test_a_damaged_word_is_said_to_whoever_needs_it_and_stops_nobody_else(tmp_path: Path, text: str) -> None:
    scanner = Onboarded(tmp_path, text)

    with pytest.raises(StateError, match="damaged"):
        renewal_flow(scanner.plain, FILES)
    assert scanner.completed == scanner.plain


@pytest.mark.parametrize("content", [b"", b"\xff" * 99, b"\x82\x40\x40"])
def test_a_damaged_credential_stops_no_other_flow(tmp_path: Path, content: bytes) -> None:
    scanner = Onboarded(tmp_path, said())
    (scanner.plain.state_directory / "fdo" / "credential.current").write_bytes(content)

    with pytest.raises(StateError):
        renewal_flow(scanner.plain, FILES)
    assert scanner.completed == scanner.plain
