"""Why a signature does not verify: the readings under which it would.

Once the bytes of the standard's reading have failed, others are tried: those of tools with known faults, and those that
undo what may happen to an instance after signing. They are tried alone first, in the order of `_changes`, then two and
three together. The MAC decides: a reading under which the signature does not verify is never reported.

Some are legitimate, for they restore exactly what was signed: lossless decompression to the MAC transfer syntax, the VR
of private elements that lost it, and that of elements for which the standard leaves a choice. All others only explain;
such a signature stays invalid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, islice

from agent.dicom.algorithms import MAC_ALGORITHMS, MacAlgorithm
from agent.dicom.data_set import DataSet
from agent.dicom.diagnosis.dcmtk_buffer import through_dcmtk_buffer
from agent.dicom.diagnosis.decompress import decompressed
from agent.dicom.diagnosis.lost_vrs import lost_vrs, stored_vrs
from agent.dicom.diagnosis.patience import COST_OF_A_PIECE, INCOMPLETE, Patience, cost_of_decoding
from agent.dicom.diagnosis.private_dictionary import (
    PrivateDictionary,
    installed_private_dictionary,
    unknown_vrs,
)
from agent.dicom.diagnosis.readings import PIXELS, Change, Element, Piece, Reading
from agent.dicom.elements import PIXEL_DATA, tag_names
from agent.dicom.mac_check import CheckedSignature
from agent.dicom.report import Diagnosis, Finding, Outcome
from agent.dicom.signature_items import MacParameters
from agent.dicom.stored_signatures import DigitalSignature
from agent.dicom.transfer_syntax import MAC_NATIVE_SYNTAXES, TransferSyntax
from agent.errors import DicomError

ORIGINAL_ATTRIBUTES_SEQUENCE = 0x04000561
MODIFIED_ATTRIBUTES_SEQUENCE = 0x04000550

# Findings of `check_mac` that another reading may explain, and that it takes back where it is legitimate.
_EXPLICABLE = frozenset(
    ("signature-wrong", "transfer-syntax-differs", "signed-element-unsignable", "signed-element-absent")
)
MOST_HISTORY = 10  # items of Original Attributes Sequence that are looked at
MOST_TOGETHER = 3  # changes of the reading at once
DECODING_SECONDS = 30  # for one image; `patience` allows work of ten for all of them together
_ENDING_THE_SEARCH = frozenset((INCOMPLETE, "too-many-elements"))  # codes


@dataclass(frozen=True)
class FailedSignature:
    """A signature whose MAC does not match under the standard's reading, or that was made over other fragments.

    Args:
        data_set: What it is a signature of: the data set, or a sequence item.
        transfer_syntax: How the instance is stored.
        parameters: Its item of the MAC Parameters Sequence.
        signature: Its item of the Digital Signatures Sequence.
        algorithm: What MAC Algorithm (0400,0015) names.
        verifies: Whether the signature is that of a digest, by the key in the certificate.
    """

    data_set: DataSet
    transfer_syntax: TransferSyntax
    parameters: MacParameters
    signature: DigitalSignature
    algorithm: MacAlgorithm
    verifies: Callable[[bytes], bool]

    @classmethod
    def of(
        cls, data_set: DataSet, transfer_syntax: TransferSyntax, checked: CheckedSignature
    ) -> FailedSignature | None:
        """What `check_mac` found wrong; None where it is nothing that another reading can explain."""
        algorithm = MAC_ALGORITHMS.get(checked.parameters.algorithm) if checked.parameters else None
        wrong = {finding.code for finding in checked.integrity.findings}
        if checked.parameters is None or algorithm is None or not wrong or not wrong <= _EXPLICABLE:
            return None
        if checked.parameters.never_signed:
            return None
        return cls(data_set, transfer_syntax, checked.parameters, checked.signature, algorithm, checked.fits)

    @property
    def covers_pixels(self) -> bool:
        """Whether it covers Pixel Data."""
        return PIXEL_DATA in self.parameters.signed_tags

    @property
    def made_before_compression(self) -> bool:
        """Whether the pixels were native when it was made and no longer are."""
        native = self.parameters.transfer_syntax in MAC_NATIVE_SYNTAXES
        return self.covers_pixels and native and self.transfer_syntax.encapsulated

    @property
    def made_over_lost_fragments(self) -> bool:
        """Whether the pixels were compressed in another way than they are now."""
        native = self.parameters.transfer_syntax in MAC_NATIVE_SYNTAXES
        return self.covers_pixels and not native and self.parameters.transfer_syntax != self.transfer_syntax.uid


@dataclass(frozen=True)
class Examination:
    """What the diagnosis came to.

    Args:
        diagnosis: The reading under which the signature verifies; None if there is none.
        findings: What could not be tried, and why.
    """

    diagnosis: Diagnosis | None = None
    findings: tuple[Finding, ...] = ()

    def instead_of(self, found: Iterable[Finding]) -> tuple[Finding, ...]:
        """What is to be reported where `check_mac` found this: a legitimate reading takes back what it explains."""
        if self.diagnosis is None or not self.diagnosis.legitimate:
            return (*found, *self.findings)
        what = f"{self.diagnosis.what} What a viewer shows of it as it is stored was not compared."
        restored = Finding("restored", what, Outcome.FLAGGED)
        return (*(finding for finding in found if finding.code not in _EXPLICABLE), restored)


def diagnose(
    failed: FailedSignature,
    patience: Patience,
    private_dictionary: Callable[[], PrivateDictionary | None] = installed_private_dictionary,
) -> Examination:
    """Look for the reading under which a signature verifies.

    Args:
        failed: The signature.
        patience: How much may be tried.
        private_dictionary: Loads a dictionary of private elements, once it is needed.
    """
    findings: list[Finding] = []
    try:
        changes = list(_changes(failed, patience, private_dictionary, findings.append))
        for chosen in _combined(changes):
            if failed.made_before_compression and not any(change.kind == PIXELS for change in chosen):
                continue
            reading = Reading()
            for change in chosen:
                reading = change.apply(reading)
            if _verifies(failed, reading, patience):
                return Examination(_diagnosis(failed, chosen, reading), tuple(findings))
    except DicomError as error:
        findings.append(_finding(error))
    return Examination(findings=tuple(findings))


def _combined(changes: Sequence[Change]) -> Iterator[tuple[Change, ...]]:
    for count in range(1, MOST_TOGETHER + 1):
        for chosen in combinations(changes, count):
            if len({change.kind for change in chosen}) == count:
                yield chosen


def _verifies(failed: FailedSignature, reading: Reading, patience: Patience) -> bool:
    data_set, tags = failed.data_set, failed.parameters.signed_tags
    if not reading.fits(data_set, tags):
        return False
    try:
        state = failed.algorithm.new()
        for piece in reading.pieces(data_set, tags):
            patience.spend(COST_OF_A_PIECE + len(piece.data))
            state.update(piece.data)
    except DicomError as error:
        if error.code in _ENDING_THE_SEARCH:
            raise
        return False  # what is there cannot be understood in this way
    failed.signature.cover(state)
    return failed.verifies(state.digest())


def _diagnosis(failed: FailedSignature, chosen: Sequence[Change], reading: Reading) -> Diagnosis:
    vrs = set(reading.vrs(failed.data_set, failed.parameters.signed_tags))
    changed = {tag for tag, stored, vr in vrs if vr != stored} | set(_restored(failed, reading))
    signed_as_unknown = any(vr == b"UN" for _, _, vr in vrs)  # which cannot be (PS3.3 C.12.1.1.3.1.1)
    what = " ".join(change.what for change in chosen)
    if changed:
        what += f" This is about {tag_names(changed)}."
    if reading.passed_on is through_dcmtk_buffer:
        what += f" It leaves out {_lost(failed, reading)} bytes, which anybody may have changed since."
    return Diagnosis(
        variant="+".join(change.variant for change in chosen),
        what=what,
        legitimate=all(change.legitimate for change in chosen) and not signed_as_unknown,
    )


def _restored(failed: FailedSignature, reading: Reading) -> Iterator[int]:
    """The covered elements that have another value than the stored one; of those in items, all that were looked at."""
    as_stored = Reading()
    for place, element in reading.restored.items():
        first, *deeper = place
        same = not deeper and first in failed.data_set and element == as_stored.element(failed.data_set, first)
        if first in failed.parameters.signed_set and not same:
            yield place[-1]


def _lost(failed: FailedSignature, reading: Reading) -> int:
    """How many bytes of the covered elements were not hashed."""
    covered = 0

    def counted(pieces: Iterable[Piece]) -> Iterator[Piece]:
        nonlocal covered
        for piece in pieces:
            covered += len(piece.data)
            yield piece

    whole = replace(reading, passed_on=counted).pieces(failed.data_set, failed.parameters.signed_tags)
    hashed = sum(len(piece.data) for piece in reading.passed_on(whole))
    return covered - hashed


_WRITER, _HISTORY = "writer", "history"


def _changes(
    failed: FailedSignature,
    patience: Patience,
    private_dictionary: Callable[[], PrivateDictionary | None],
    note: Callable[[Finding], None],
) -> Iterator[Change]:
    """The changes that are worth trying, the simplest first."""
    if failed.made_over_lost_fragments:
        note(_lost_fragments(failed))
        return
    encapsulated = bool(failed.covers_pixels and failed.data_set.fragments(PIXEL_DATA))
    if encapsulated and failed.data_set.vr(PIXEL_DATA) == b"OW":
        yield Change(
            PIXELS,
            "pixel-data-ow",
            "The signature was made over encapsulated Pixel Data under the VR OW, which PS3.5 A.4 does not allow.",
            lambda reading: replace(reading, encapsulated_vr=b"OW"),
        )
    yield Change(
        _WRITER,
        "dcmtk-normalisation",
        "The signature was made over strings that were padded anew, as DCMTK does it, and not over the stored bytes.",
        lambda reading: replace(reading, trimmed=True),
    )
    yield from _vr_changes(failed, private_dictionary, note)
    if failed.made_before_compression:
        yield from _decompressions(failed, patience, note)
    yield Change(
        _WRITER,
        "dcmtk-buffer",
        "The signature was made by a DCMTK that loses bytes of nested sequences wherever its buffer of 16 KiB is full.",
        lambda reading: replace(reading, trimmed=True, passed_on=through_dcmtk_buffer),
    )
    if encapsulated:
        yield Change(
            _WRITER,
            "dcmtk-old-format",
            "The signature was made in the format of DCMTK before 3.5.4, with the lengths of fragments.",
            lambda reading: replace(reading, trimmed=True, fragment_lengths=True, passed_on=through_dcmtk_buffer),
        )
    yield from _earlier_values(failed)


def _vr_changes(
    failed: FailedSignature,
    private_dictionary: Callable[[], PrivateDictionary | None],
    note: Callable[[Finding], None],
) -> Iterator[Change]:
    stored = stored_vrs(failed.data_set, failed.parameters.signed_tags)
    if failed.data_set.encoding.little_endian:
        yield from lost_vrs(failed.data_set, stored)
    yield from unknown_vrs(stored, private_dictionary, note)


def _decompressions(failed: FailedSignature, patience: Patience, note: Callable[[Finding], None]) -> Iterator[Change]:
    tags, syntax = failed.parameters.signed_tags, failed.transfer_syntax.uid
    patience.spend(cost_of_decoding(failed.data_set, tags, syntax))
    try:
        ways = decompressed(failed.data_set, tags, syntax, DECODING_SECONDS)
    except DicomError as error:
        note(_finding(error))
        if error.code == "decompression-too-long":
            patience.give_up()
        return
    for elements in ways:
        yield Change(
            PIXELS,
            "lossless-recompression",
            "Pixel Data was compressed without loss after signing. Decompressed to the MAC transfer syntax, "
            f"{failed.parameters.transfer_syntax}, it is what was signed.",
            partial(Reading.restoring, elements=elements),
            legitimate=True,
        )


def _earlier_values(failed: FailedSignature) -> Iterator[Change]:
    """The attributes as they were before a change that was recorded (PS3.3 C.12.1.1.9.1)."""
    items = islice(failed.data_set.items(ORIGINAL_ATTRIBUTES_SEQUENCE), MOST_HISTORY)
    history = [_recorded(failed, item) for item in items]
    # Of several changes of the same attribute the first one recorded what was signed.
    together: dict[int, Element] = {}
    for elements in reversed(history):
        together |= elements
    tried: list[dict[int, Element]] = []
    for elements in (*history, together):
        if not elements or elements in tried:
            continue
        tried.append(elements)
        yield Change(
            _HISTORY,
            "patient-level-change",
            "Values changed after signing. What was signed are those that Original Attributes Sequence (0400,0561) "
            "keeps.",
            partial(Reading.restoring, elements={(tag,): element for tag, element in elements.items()}),
        )


def _recorded(failed: FailedSignature, item: DataSet) -> dict[int, Element]:
    """The covered attributes of which an item of Original Attributes Sequence keeps another value."""
    as_stored = Reading()
    return {
        tag: as_stored.element(modified, tag)
        for modified in item.items(MODIFIED_ATTRIBUTES_SEQUENCE)
        for tag in set(modified.tags).intersection(failed.parameters.signed_tags)
        if bytes(modified.raw(tag)) != bytes(failed.data_set.raw(tag))
    }


def _lost_fragments(failed: FailedSignature) -> Finding:
    return Finding(
        "compressed-original-lost",
        f"The signature was made over pixels compressed to {failed.parameters.transfer_syntax[:64]}. They are stored "
        "in another way now, and compressing them again does not give the same bytes.",
        Outcome.INDETERMINATE,
    )


def _finding(error: DicomError) -> Finding:
    return Finding(error.code, f"{error.what} {error.remedy}".strip(), Outcome.INDETERMINATE)
