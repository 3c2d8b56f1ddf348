"""Damaged and forged signatures: never taken for intact, and no error but a DicomError."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from agent.errors import DicomError
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dicom_samples import mutants, small_instance, with_each_bit_flipped
from tests.support.dicom_tree import DIGITAL_SIGNATURES, EXPLICIT_LITTLE_ENDIAN, MAC_PARAMETERS, parse, tag_bytes
from tests.support.product_signing import intact, newest_signature, sign, verify
from tests.support.raw_dicom import Node, Nodes, Writer, as_nodes, instance, part10, text

# A flipped bit can make the serial number of the certificate negative.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC)).issue("signer", rsa_key(2048))


@pytest.fixture(scope="module")
def signed(signer: Signer) -> bytes:
    """The small instance with a signature."""
    return sign(small_instance(), signer)


def assert_intact_only_if_the_oracle_says_so(data: bytes) -> None:
    """No changed instance passes for intact unless the change is outside of what the signature covers."""
    try:
        verdicts = intact(data)
    except DicomError:
        return
    if any(verdicts):
        signature = newest_signature(data)
        assert signature.recovered_digest() == signature.stream_digest()


def test_every_flipped_bit_is_noticed_or_was_not_covered(signed: bytes) -> None:
    for mutant in with_each_bit_flipped(signed, step=3):
        assert_intact_only_if_the_oracle_says_so(mutant)


def test_mutants_of_a_signed_instance_are_noticed_or_were_not_covered(signed: bytes) -> None:
    for mutant in mutants(signed, 1_000, seed=8):
        assert_intact_only_if_the_oracle_says_so(mutant)


def test_a_truncated_signed_instance_is_refused_or_not_intact(signed: bytes) -> None:
    for length in range(len(signed)):
        with contextlib.suppress(DicomError):
            assert not any(intact(signed[:length]))


# --- forgeries that leave the byte stream of the MAC as it was, or that dcmsign lets pass ---


def rewritten(signed: bytes, change: Callable[[Nodes], Nodes]) -> bytes:
    """The instance with its data set changed and written again."""
    parsed = parse(signed)
    return parsed.head + Writer(EXPLICIT_LITTLE_ENDIAN).data_set(change(as_nodes(parsed.elements)))


def with_item(nodes: Nodes, tag: int, change: Callable[[Nodes], Nodes]) -> Nodes:
    """The nodes with the only item of a sequence changed."""
    return tuple(
        replace(node, items=tuple(change(item) for item in node.items or ())) if node.tag == tag else node
        for node in nodes
    )


def with_tag_list(tags: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> Callable[[Nodes], Nodes]:
    """A change of Data Elements Signed (0400,0020)."""

    def of_item(item: Nodes) -> Nodes:
        def listed(value: bytes) -> tuple[bytes, ...]:
            return tuple(value[at : at + 4] for at in range(0, len(value), 4))

        return tuple(
            replace(node, value=b"".join(tags(listed(node.value)))) if node.tag == 0x04000020 else node for node in item
        )

    return lambda nodes: with_item(nodes, MAC_PARAMETERS, of_item)


def with_element(tag: int, node: Node) -> Callable[[Nodes], Nodes]:
    """An element added to the item of a sequence."""
    return lambda nodes: with_item(
        nodes, tag, lambda item: tuple(sorted((*item, node), key=lambda present: present.tag))
    )


def with_value(sequence: int, tag: int, value: bytes) -> Callable[[Nodes], Nodes]:
    """Another value of an element in the item of a sequence."""
    return lambda nodes: with_item(
        nodes, sequence, lambda item: tuple(replace(node, value=value) if node.tag == tag else node for node in item)
    )


FORGERIES: Final[dict[str, Callable[[Nodes], Nodes]]] = {
    "no tag is listed": with_tag_list(lambda _: ()),
    "the tag list is reversed": with_tag_list(lambda tags: tags[::-1]),
    "a tag is listed twice": with_tag_list(lambda tags: (*tags, tags[-1])),
    "a tag is listed that is not there": with_tag_list(lambda tags: (*tags[:-1], tag_bytes(0x7FE00003), tags[-1])),
    "a group length is listed": with_tag_list(lambda tags: (tag_bytes(0x00080000), *tags)),
    "another element in the signature item": with_element(DIGITAL_SIGNATURES, text(0x0040A160, "UT", "more")),
    "another element in the MAC parameters": with_element(MAC_PARAMETERS, text(0x0040A160, "UT", "more")),
    "another MAC transfer syntax": with_value(MAC_PARAMETERS, 0x04000010, b"1.2.840.10008.1.2.5\0"),
    "another hash": with_value(MAC_PARAMETERS, 0x04000015, b"SHA384"),
    "no hash": with_value(MAC_PARAMETERS, 0x04000015, b""),
    "an unknown hash": with_value(MAC_PARAMETERS, 0x04000015, b"CRC32 "),
    "no signature": with_value(DIGITAL_SIGNATURES, 0x04000120, b""),
    "a signature of zeros": with_value(DIGITAL_SIGNATURES, 0x04000120, bytes(256)),
    "a signature longer than the key": with_value(DIGITAL_SIGNATURES, 0x04000120, b"\1" * 4096),
    "no certificate": with_value(DIGITAL_SIGNATURES, 0x04000115, b""),
    "a certificate that is none": with_value(DIGITAL_SIGNATURES, 0x04000115, b"\x30\x02\x05\x00"),
    "MAC parameters of another number": with_value(MAC_PARAMETERS, 0x04000005, b"\7\0"),
    "no MAC parameters": lambda nodes: tuple(node for node in nodes if node.tag != MAC_PARAMETERS),
    "MAC parameters twice": lambda nodes: tuple(
        replace(node, items=(node.items or ()) * 2) if node.tag == MAC_PARAMETERS else node for node in nodes
    ),
    "a second element of the same tag": lambda nodes: (
        *(node for node in nodes if node.tag <= 0x7FE00010),
        Node(0x7FE00010, "OW", bytes(32)),
        *(node for node in nodes if node.tag > 0x7FE00010),
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_not_intact(name: str, signed: bytes) -> None:
    with contextlib.suppress(DicomError):
        assert True not in intact(rewritten(signed, FORGERIES[name]))


def test_writing_it_again_is_no_forgery(signed: bytes) -> None:
    assert intact(rewritten(signed, lambda nodes: nodes)) == [True]


def test_content_moved_into_the_signature_item_is_not_intact(signer: Signer) -> None:
    data = part10(instance(text(0x00204000, "LT", "comment")))
    comment = text(0x00204000, "LT", "comment")
    honest = sign(data, signer)
    moved = rewritten(honest, lambda nodes: tuple(node for node in nodes if node.tag != comment.tag))
    moved = rewritten(moved, with_element(DIGITAL_SIGNATURES, comment))
    assert newest_signature(moved).stream == newest_signature(honest).stream
    with contextlib.suppress(DicomError):
        assert intact(moved) == [False]


def test_attributes_of_c_2_added_after_signing_are_reported(signed: bytes) -> None:
    overlay = Node(0x60020010, "US", b"\4\0")
    added = rewritten(signed, lambda nodes: tuple(sorted((*nodes, overlay), key=lambda node: node.tag)))
    (report,) = verify(added)
    assert report.intact
    assert report.coverage.missing == (overlay.tag,)
    assert [finding.code for finding in report.coverage.findings] == ["overlay-not-covered"]
