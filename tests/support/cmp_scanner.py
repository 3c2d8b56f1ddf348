"""A scanner with a factory identity, and the CMP server of its hospital."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.config import EnrollSettings, IdentitySettings, StoreName
from enroll.csr import CertificateRequest, Usage
from enroll.flows.settings import CmpSettings, FlowName
from enroll.identity import Generation, IdentityName
from enroll.keystore.base import Protection
from enroll.trust import VerifiedCertificate
from tests.support.cmp_server import CmpServer, cmp_server
from tests.support.enrolling import Scanner, settings
from tests.support.pki import DEVICE, Content, HospitalCa


@dataclass(frozen=True)
class Site:
    """A hospital with a CMP server, and a scanner that was delivered to it."""

    scanner: Scanner
    server: CmpServer
    vendor: HospitalCa

    @property
    def ca(self) -> HospitalCa:
        return self.server.ca

    def with_cmp(self, **changes: Any) -> Site:
        """The same, with other settings in `[cmp]`."""
        return replace(self, scanner=self.scanner.restarted(cmp=replace(self.scanner.settings.cmp, **changes)))

    def current(self, identity: IdentityName) -> Generation:
        """What is in use."""
        generation = self.scanner.matching_pair(identity)
        assert generation is not None
        return generation


@contextmanager
def site(
    folder: Path, *options: str, changes: EnrollSettings | None = None, factory: IdentitySettings | None = None
) -> Iterator[Site]:
    """A hospital and its scanner.

    Args:
        folder: For both.
        options: Of `openssl cmp`.
        changes: Settings of the scanner, without `[cmp]`.
        factory: How the key of the factory identity is made; by default P-256 in a file.
    """
    ca, vendor = HospitalCa(), HospitalCa("Vendor CA")
    devices = [ca.certificate, vendor.certificate]
    with cmp_server(folder / "cmp", ca, devices, *options) as server:
        anchor_file = folder / "anchors.pem"
        cmp = CmpSettings(url=server.url, anchor_file=anchor_file, timeout=20)
        scanner = Scanner(replace(changes or settings(folder), cmp=cmp), (ca.certificate,), SystemClock())
        deliver(scanner, vendor, factory)
        yield Site(scanner, server, vendor)


def deliver(
    scanner: Scanner,
    vendor: HospitalCa,
    wanted: IdentitySettings | None = None,
) -> Generation:
    """Put a factory identity into a scanner, as the vendor does."""
    wanted = wanted or IdentitySettings(key_store=StoreName.SOFTWARE, key_algorithm=KeyAlgorithm.P_256)
    uri = scanner.stores.generate(
        wanted.key_store, f"idevid-{secrets.token_hex(8)}", wanted.key_algorithm, wanted.token
    )
    now = scanner.clock.now()
    content = Content.asked(CertificateRequest.for_device(DEVICE, Usage.DEVICE), now)
    certificate = vendor.issue(scanner.stores.load(uri).public_key(), content)
    return scanner.identities.commit(
        IdentityName.IDEVID,
        VerifiedCertificate(certificate, ()),
        uri,
        protection=Protection.SOFTWARE,
        flow=FlowName.VENDOR,
        now=now,
    )
