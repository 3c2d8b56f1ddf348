"""What happens to signed images, each done by a real tool: from the signed file to the changed one."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final, TypeAlias

import pydicom
from pydicom import datadict

from tests.support import dcmsign, product_signing
from tests.support.certificates import Signer
from tests.support.dcmsign import Run
from tests.support.dicom_tools import ToolFailed, filtered, modified, sent
from tests.support.dicom_tree import DIGITAL_SIGNATURES, find, parse, value
from tests.support.excluded_attributes import (
    ALTHOUGH_EXCLUDED,
    COERCION_PRONE,
    DECIDED,
    OF_MODULES,
    STUDY_INSTANCE_UID,
    is_demanded_by_c_2,
)

Change: TypeAlias = Callable[[bytes, Signer], bytes]

# --- other ways to store it ---


def nothing(data: bytes) -> bytes:
    """Leaves a file as it is."""
    return data


def by(program: str, *options: str, then: tuple[str, ...] = ()) -> Change:
    """What a filter of DCMTK does, and if wanted another one after it."""

    def change(data: bytes, _: Signer) -> bytes:
        changed = filtered(data, program, *options)
        return filtered(changed, *then) if then else changed

    return change


def old_dictionary(unknown: Collection[int]) -> str:
    """The dictionary of DCMTK for the standard, as it was before some attributes were invented; nothing private."""
    (path,) = (path for path in dcmsign.dictionaries() if path.name == "dicom.dic")
    unknown_lines = tuple(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in unknown)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.upper().startswith(unknown_lines))


def through_implicit_vr(*unknown: int) -> Change:
    """Into implicit VR and back, the latter by a dcmconv that does not know some attributes (PS3.5 6.2.2)."""

    def change(data: bytes, _: Signer) -> bytes:
        return filtered(filtered(data, "dcmconv", "+ti"), "dcmconv", "+te", dictionary=old_dictionary(unknown))

    return change


def transferred(sender: tuple[str, ...] = (), receiver: tuple[str, ...] = ()) -> Change:
    """A C-STORE from storescu to storescp."""
    return lambda data, _: sent(data, sender, receiver)


def rewritten(*, touched: bool = False) -> Change:
    """Read and written by pydicom, with every value set to itself or not."""

    def change(data: bytes, _: Signer) -> bytes:
        data_set = pydicom.dcmread(io.BytesIO(data))
        for element in data_set.iterall() if touched else ():
            element.value = element.value
        target = io.BytesIO()
        data_set.save_as(target)
        return target.getvalue()

    return change


# --- other values ---


def edited(*options: str) -> Change:
    """What dcmodify does."""
    return lambda data, _: modified(data, *options)


def pixel_changed(data: bytes, _: Signer) -> bytes:
    """The lowest bit of the last pixel is another one."""
    return data[:-2] + bytes((data[-2] ^ 1,)) + data[-1:]


VALUES: Final = {
    "AE": ("STATION1", "STATION2"),
    "AS": ("042Y", "043Y"),
    "DA": ("20260101", "20260202"),
    "DS": ("1.5", "2.5"),
    "DT": ("20260101", "20260202"),
    "FD": ("1.5", "2.5"),
    "IS": ("1", "2"),
    "PN": ("Doe^Jane", "Roe^Richard"),
    "TM": ("101112", "131415"),
    "UI": ("2.25.1", "2.25.2"),
    "US": ("1", "2"),
}
UNKNOWN_TO_DCMODIFY: Final = frozenset({0x00102161, 0x00120023, 0x00120054})  # the dictionary of DCMTK 3.6.7
OF_PERSON_AND_STUDY: Final = frozenset(
    tag
    for tag in OF_MODULES - ALTHOUGH_EXCLUDED - UNKNOWN_TO_DCMODIFY - {STUDY_INSTANCE_UID}
    if not is_demanded_by_c_2(tag)
)
OF_ARCHIVE: Final = COERCION_PRONE | DECIDED


def with_old_values(tags: frozenset[int]) -> Callable[[bytes], bytes]:
    """Gives each attribute a value."""
    return lambda data: modified(data, *value_options(tags, 0))


def with_new_values(tags: frozenset[int]) -> Change:
    """Gives each attribute another value, or adds it with that."""
    return edited(*value_options(tags, 1))


def value_options(tags: Iterable[int], number: int) -> tuple[str, ...]:
    """Options of dcmodify that give each attribute its first or second value; a sequence, an item with one."""
    options: list[str] = []
    for tag in sorted(tags):
        vr = datadict.dictionary_VR(tag)
        path = f"({tag >> 16:04X},{tag & 0xFFFF:04X})" + ("[0].(0008,0104)" if vr == "SQ" else "")
        options += ("-i", f"{path}={VALUES.get(vr, ('BEFORE', 'AFTER'))[number]}")
    return tuple(options)


# --- more signatures ---


def signed_by_dcmsign(*options: str) -> Change:
    """Another signature, by dcmsign."""
    return lambda data, signer: _by_dcmsign(
        data,
        lambda source, target: dcmsign.sign(source, target, signer.key_file, signer.certificate_file, options=options),
    )


def item_signed_by_dcmsign(item: str) -> Change:
    """Another signature, inside a sequence item."""
    return lambda data, signer: _by_dcmsign(
        data,
        lambda source, target: dcmsign.sign_item(source, target, signer.key_file, signer.certificate_file, item),
    )


def signed_again(data: bytes, signer: Signer) -> bytes:
    """Another signature of ours."""
    return product_signing.sign(data, signer)


def signed_again_and_that_removed(data: bytes, signer: Signer) -> bytes:
    """Another signature by dcmsign, which dcmsign removes again."""
    both = signed_by_dcmsign(*dcmsign.CREATOR)(data, signer)
    sequence = find(parse(both).elements, DIGITAL_SIGNATURES)
    if sequence is None or not sequence.items:
        raise LookupError("not signed")
    uid = value(sequence.items[-1], 0x04000100).decode("ascii").rstrip("\0")
    return _by_dcmsign(both, lambda source, target: dcmsign.run("+r", uid, source, target))


def _by_dcmsign(data: bytes, work: Callable[[Path, Path], Run]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.dcm", Path(folder) / "target.dcm"
        source.write_bytes(data)
        run = work(source, target)
        if not run.accepted:
            raise ToolFailed(run.output)
        return target.read_bytes()
