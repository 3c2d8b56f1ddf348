"""A scanner whose requests are carried by hand, and the hospital's CA that answers them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.certificates import pem
from enroll.clock import Clock
from enroll.config import EnrollSettings
from enroll.flows.offline import Errand
from enroll.flows.offline.desk import OfflineDesk
from enroll.flows.offline.requests import Request
from enroll.flows.settings import OfflineSettings, VendorSettings
from enroll.identity import Generation, IdentityName
from enroll.keystore.base import PublicKey
from enroll.offline_request import OfflineRequest, read_offline_request
from enroll.statefile import StateFiles
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import Content, HospitalCa

DEVICE, SIGNING, IDEVID = IdentityName.DEVICE, IdentityName.SIGNING, IdentityName.IDEVID


def offline_settings(folder: Path) -> EnrollSettings:
    """The anchors of `Scanner` are those of [offline]; the vendor's are beside them."""
    offline, vendor = folder / "anchors.pem", folder / "vendor.pem"
    return replace(
        settings(folder), offline=OfflineSettings(anchor_file=offline), vendor=VendorSettings(anchor_file=vendor)
    )


class ByHand:
    """A scanner and its CAs; a new one on the same folder is the process after a restart."""

    def __init__(
        self,
        folder: Path,
        ca: HospitalCa,
        vendor: HospitalCa | None = None,
        clock: Clock | None = None,
        files: StateFiles | None = None,
        **changes: Any,
    ) -> None:
        self.folder, self.ca, self.vendor = folder, ca, vendor
        (folder / "vendor.pem").write_bytes(pem([(vendor or ca).certificate]))
        configured = replace(offline_settings(folder), **changes)
        self.scanner = Scanner(configured, (ca.certificate,), clock, files)
        self.desk = OfflineDesk(self.scanner.context)

    def restarted(self, files: StateFiles | None = None, **changes: Any) -> ByHand:
        return ByHand(self.folder, self.ca, self.vendor, self.scanner.clock, files, **changes)

    def export(self, identity: IdentityName = SIGNING, why: str = "", number: str = "") -> tuple[Request, bytes]:
        """One request, and its file."""
        written: list[bytes] = []
        errand = Errand(number or self.desk.number_for(identity), why, "request.txt", written.append)
        request = self.desk.export(identity, errand)
        (file,) = written
        return request, file

    def take_in(self, *answers: bytes) -> tuple[Generation, ...]:
        return self.desk.take_in({f"answer-{number}": answer for number, answer in enumerate(answers)})

    def with_identity(self, identity: IdentityName, ca: HospitalCa) -> Generation:
        """The scanner gets an identity over a network."""
        generation = self.scanner.issue(CaFlow(ca, self.scanner.clock), identity)
        assert isinstance(generation, Generation)
        return generation

    def out(self) -> dict[str, str]:
        """The requests that are out, with their states."""
        return {request.number: str(request.state) for request in self.desk.requests.all()}

    def folders(self) -> list[Path]:
        """What lies in the file system for requests by hand."""
        return list((self.scanner.settings.state_directory / "identities").glob("*/offline/*"))

    def granted(self, file: bytes, **changes: Any) -> x509.Certificate:
        """What the CA issues for a file, as a careful operator does."""
        return granted(self.ca, read_offline_request(file), **changes)


def granted(issuer: HospitalCa, request: OfflineRequest, **changes: Any) -> x509.Certificate:
    """The names, usages and key of a request, in a certificate."""
    key = request.signed.public_key()
    assert isinstance(key, PublicKey)
    extensions = request.signed.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    content = Content(subject=request.signed.subject, alternative_names=list(names), extended_usage=list(usage))
    return issuer.issue(key, replace(content, **changes))


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
