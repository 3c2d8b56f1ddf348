"""What onboarding is for: images that the scanner signs, and that DCMTK's dcmsign accepts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding

from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.enroller import Enroller, flow_of
from enroll.evaluation.est_server import EstServer
from enroll.flows.settings import EstSettings, FdoRenewal, FlowName
from enroll.identity import Generation, IdentityName
from tests.support import dcmsign, product_signing
from tests.support.dicom_samples import ct_slice
from tests.support.enrolling import Scanner
from tests.support.fdo.scanner import FdoScanner


def assert_signs_images(scanner: FdoScanner, server: EstServer, folder: Path) -> None:
    """The certificate of its owner gets it one that signs, whose image dcmsign accepts.

    Args:
        scanner: Has been onboarded.
        server: Of the hospital; it knows devices by the certificates of their owner's CA.
        folder: For the image.
    """
    image, anchor = folder / "signed.dcm", folder / "anchor.pem"
    hospital = _with_signing_identity(scanner, server)
    try:
        image.write_bytes(_image_signed_by(hospital))
    finally:
        hospital.stores.close()
    anchor.write_bytes(server.ca.certificate.public_bytes(Encoding.PEM))
    run = dcmsign.verify(image, anchor)
    assert run.accepted, run.output


def _with_signing_identity(scanner: FdoScanner, server: EstServer) -> Scanner:
    """The same scanner; its signing identity came on the way that the device identity is renewed."""
    settings = scanner.scanner.settings
    signing = replace(settings.identity.signing, key_algorithm=KeyAlgorithm.RSA_2048)
    settings = replace(
        settings,
        est=EstSettings(url=server.url),
        fdo=replace(settings.fdo, renewal=FdoRenewal.EST),
        identity=replace(settings.identity, signing=signing),
    )
    owner = scanner.credential.owner
    assert owner is not None
    # The hospital trusts both CAs: the one that the owner brought, and that of its EST server.
    hospital = Scanner(settings, (server.ca.certificate, *owner.anchors), SystemClock())
    # An identity of an onboarding before would renew itself, and prove nothing about this one.
    shutil.rmtree(hospital.identities.directory(IdentityName.SIGNING), ignore_errors=True)
    flow = flow_of(IdentityName.SIGNING, hospital.settings, hospital.identities)
    assert flow is FlowName.EST
    with Enroller(hospital.context) as enroller:
        assert isinstance(enroller.enroll(IdentityName.SIGNING, flow), Generation)
    return hospital


def _image_signed_by(scanner: Scanner) -> bytes:
    generation = scanner.matching_pair(IdentityName.SIGNING)
    assert generation is not None
    key = scanner.stores.load(generation.key_uri)
    assert isinstance(key, rsa.RSAPrivateKey)

    def sign(digest: bytes) -> bytes:
        return key.sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))

    certificate = generation.certificate.public_bytes(Encoding.DER)
    return product_signing.sign_bytes(ct_slice(32, 32), product_signing.plan(), sign, certificate)
