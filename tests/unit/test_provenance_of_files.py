"""A scanner, a workstation and a model sign what they make; the recipient follows it back to the scanner's pixels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from agent.cli.source_files import standing
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.provenance.graph import NodeVerdict, ProvenanceGraph, SourceNode, provenance_graph, source_node
from agent.dicom.provenance.sources import StatedMac, mac_of
from agent.dicom.report import InstanceReport
from agent.dicom.sign import SignaturePlan
from agent.dicom.signer_chain import TrustMaterial
from agent.dicom.stored_instance import StoredInstance
from agent.dicom.verify import Verification, verify_instance
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Axes, Judgement, Receipt
from agent.policy.model import Policy
from agent.policy.signature import UNSOUND
from agent.policy.verdicts import Action, Verdict
from enroll.config import DeviceSettings
from enroll.csr import CertificateRequest, Usage
from tests.support.dicom_tree import parse
from tests.support.pki import NOW, Content, HospitalCa
from tests.support.product_signing import sign_bytes
from tests.support.provenance import PIXELS, image, made_from, reference, uid, verdicts
from tests.support.raw_dicom import Node, Nodes, as_nodes, part10, text

CA = HospitalCa()
ABOUT_SOURCES = (Verdict.DERIVED_UNVERIFIED_SOURCE, Verdict.SYNTHETIC_UNVERIFIED)
STRANGER = HospitalCa("Somebody's CA")


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def signed(nodes: Nodes, serial_number: str, issuer: HospitalCa = CA) -> bytes:
    """The instance, signed by a device of that serial number."""
    request = CertificateRequest.for_device(
        DeviceSettings(serial_number, "Model", "1.3.6.1.4.1.32473.1"), Usage.SIGNING
    )
    content = Content.asked(request, NOW - timedelta(days=1))
    certificate = issuer.issue(key().public_key(), content).public_bytes(serialization.Encoding.DER)
    data = part10(nodes)
    profile = load_profile(ProfileName.CREATOR_PLUS)
    plan = SignaturePlan(profile, "sha256", f"2.25.{serial_number.encode().hex()[:4]}77", NOW)

    def sign(digest: bytes) -> bytes:
        return key().sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))

    return sign_bytes(data, plan, sign, certificate)


def with_more(data: bytes, *more: Node) -> bytes:
    """Elements put into a file that may be signed."""
    nodes = (*as_nodes(parse(data).elements), *more)
    return part10(tuple(sorted(nodes, key=lambda node: node.tag)))


@dataclass
class Folder:
    """Files by SOP Instance UID, as a recipient keeps them."""

    files: dict[str, bytes]
    anchors: tuple[x509.Certificate, ...] = field(default=(CA.certificate,))
    policy: Policy | None = None

    def lookup(self, wanted: str) -> SourceNode | None:
        if wanted not in self.files:
            return None
        data = self.files[wanted]
        verification = Verification(load_profile(ProfileName.CREATOR_PLUS), NOW, TrustMaterial(self.anchors))
        data_set = StoredInstance.read(data, DEFAULT_LIMITS).data_set
        return source_node(verify_instance(data, verification), data_set, self.standing_of)

    def standing_of(self, report: InstanceReport) -> NodeVerdict:
        return standing(evaluate(report, Receipt(NOW), self.policy, NOW, sources_verified=True))

    def mac_of(self, wanted: str, stated: StatedMac) -> bytes | None:
        instance = StoredInstance.read(self.files[wanted], DEFAULT_LIMITS)
        return mac_of(instance.data_set, instance.meta.syntax.uid, stated)

    def graph(self) -> ProvenanceGraph:
        return provenance_graph(uid(1), self.lookup, self.mac_of)


def acquired(pixels: bytes = b"pixels", issuer: HospitalCa = CA) -> bytes:
    return signed(image(3, "CT-1", "ORIGINAL", pixels=pixels), "CT-1", issuer)


@pytest.fixture
def folder() -> Folder:
    """What a model made (1) of what a workstation made (2) of what a scanner saw (3)."""
    original = acquired()
    reformatted = signed(image(2, "WS-7", "DERIVED", made_from(original, 3)), "WS-7")
    synthetic = text(0x0008001C, "CS", "YES")
    enhanced = signed(image(1, "AI-9", "DERIVED", synthetic, made_from(reformatted, 2)), "AI-9")
    return Folder({uid(1): enhanced, uid(2): reformatted, uid(3): original})


def test_every_step_is_followed_back_to_the_scanner(folder: Folder) -> None:
    graph = folder.graph()
    assert verdicts(graph) == {"1": "verified", "2": "verified", "3": "verified"}
    assert [edge.check.value for edge in graph.edges] == ["fits", "fits"]
    assert graph.sources_verified
    assert ["CT-1" in node.signer for node in graph.nodes] == [False, False, True]


def test_a_changed_source_breaks_its_signature_and_no_longer_fits(folder: Folder) -> None:
    folder.files[uid(3)] = folder.files[uid(3)].replace(b"pixels", b"fakery")
    assert verdicts(folder.graph())["3"] == "mac-mismatch"


def test_another_genuine_image_under_the_same_uid_is_not_what_was_referenced(folder: Folder) -> None:
    folder.files[uid(3)] = acquired(pixels=b"others")
    graph = folder.graph()
    assert verdicts(graph)["3"] == "mac-mismatch"
    assert not graph.sources_verified


def test_an_unsigned_copy_of_the_source_fits_and_is_yet_unverified(folder: Folder) -> None:
    folder.files[uid(3)] = part10(image(3, "CT-1", "ORIGINAL"))
    graph = folder.graph()
    assert verdicts(graph)["3"] == "unsigned"
    assert graph.edges[-1].check.value == "fits"


def test_a_source_signed_under_a_foreign_ca_is_of_an_unknown_signer(folder: Folder) -> None:
    folder.files[uid(3)] = acquired(issuer=STRANGER)
    assert verdicts(folder.graph())["3"] == "unknown-signer"


def test_a_source_signed_by_another_device_than_it_names_is_of_an_unknown_signer(folder: Folder) -> None:
    folder.files[uid(3)] = signed(image(3, "CT-1", "ORIGINAL"), "CT-2")
    assert verdicts(folder.graph())["3"] == "unknown-signer"


def test_without_anchors_nobody_is_known(folder: Folder) -> None:
    folder.anchors = ()
    assert set(verdicts(folder.graph()).values()) == {"unknown-signer"}


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict not in ABOUT_SOURCES])
def test_a_source_is_verified_if_a_known_signer_answers_for_it_at_a_time_that_holds(verdict: Verdict) -> None:
    """ADR 17; of the rest nobody can say that a known signer made it (`UNSOUND`), or it is open or unsigned."""
    verified = standing(Judgement(verdict=verdict, action=Action.ACCEPT, axes=Axes())) is NodeVerdict.VERIFIED
    refused = UNSOUND | {Verdict.INDETERMINATE, Verdict.VALID_NO_TRUSTED_TIME}
    assert verified == (verdict not in refused and not verdict.startswith("UNSIGNED"))


@pytest.mark.parametrize("verdict", ABOUT_SOURCES)
def test_what_is_wrong_with_the_sources_of_a_source_is_found_at_these(verdict: Verdict) -> None:
    """An unsigned derived source has such a headline; what counts is what stands beside it."""
    for beside, expected in (((Verdict.UNSIGNED,), NodeVerdict.UNSIGNED), ((), NodeVerdict.INDETERMINATE)):
        judgement = Judgement(verdict=verdict, beside=beside, action=Action.FLAG, axes=Axes())
        assert standing(judgement) is expected


def test_a_signature_that_leaves_out_the_pixels_does_not_verify_a_source(folder: Folder) -> None:
    """Whoever can exchange the pixels has written the image."""

    def without_pixels(report: InstanceReport) -> InstanceReport:
        (signature,) = report.signatures
        covered = tuple(tag for tag in signature.coverage.covered if tag != PIXELS)
        return replace(report, signatures=(replace(signature, coverage=replace(signature.coverage, covered=covered)),))

    verification = Verification(load_profile(ProfileName.CREATOR_PLUS), NOW, TrustMaterial(folder.anchors))
    report = verify_instance(folder.files[uid(3)], verification)
    data_set = StoredInstance.read(folder.files[uid(3)], DEFAULT_LIMITS).data_set
    assert source_node(report, data_set, folder.standing_of).standing is NodeVerdict.VERIFIED
    node = source_node(without_pixels(report), data_set, folder.standing_of)
    assert node.standing is NodeVerdict.ORIGIN_NOT_COVERED


def test_a_derived_image_whose_reference_was_taken_out_is_broken(folder: Folder) -> None:
    kept = (node for node in as_nodes(parse(folder.files[uid(1)]).elements) if node.tag != 0x00082112)
    folder.files[uid(1)] = part10(tuple(kept))
    assert verdicts(folder.graph()) == {"1": "broken"}


def test_a_reference_that_was_added_to_a_signed_image_is_not_covered(folder: Folder) -> None:
    folder.files[uid(1)] = with_more(folder.files[uid(1)], Node(0x00420013, "SQ", items=(reference(9),)))
    graph = folder.graph()
    assert verdicts(graph)["1"] == "verified"
    assert [edge.source for edge in graph.edges if not edge.covered] == [uid(9)]
    assert not graph.sources_verified


def test_an_unsigned_derived_image_is_an_unverified_source(folder: Folder) -> None:
    folder.files[uid(1)] = part10(image(1, "AI-9", "DERIVED", made_from(folder.files[uid(2)], 2)))
    graph = folder.graph()
    assert verdicts(graph) == {"1": "unsigned", "2": "verified", "3": "verified"}
    assert not graph.edges[0].covered
    assert not graph.sources_verified


def test_a_derived_image_that_hides_its_synthetic_source_is_noted(folder: Folder) -> None:
    folder.files[uid(4)] = signed(image(4, "WS-7", "DERIVED", made_from(folder.files[uid(1)], 1)), "WS-7")
    graph = provenance_graph(uid(4), folder.lookup, folder.mac_of)
    assert graph.sources_verified
    assert [finding.code for finding in graph.findings] == ["synthetic-source-undeclared"]
