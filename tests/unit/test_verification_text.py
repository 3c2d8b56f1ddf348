"""What a person reads of a file: one line that says it all, and each reason once."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Final

from agent.cli.verification_text import headline, text_of
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Receipt
from agent.policy.verdicts import Action, Verdict
from tests.support.attacks.editing import one_after_the_other, rewritten, with_unknown_vr, with_value
from tests.support.attacks.images import CREATOR_VERSION_UID, signed, slice_with
from tests.support.attacks.registry import report_on
from tests.support.attacks.resigning import resigned, slice_of_a_former_key, stamped
from tests.support.attacks.signers import FORMER_KEY_UNTIL, SIGNED_AT, former_key
from tests.support.pki import NOW
from tests.support.raw_dicom import part10, text

FILE: Final = Path("image.dcm")
PRIVATE, PIXEL_SPACING, PIXEL_DATA = 0x00291008, 0x00280030, 0x7FE00010


@cache
def honest() -> bytes:
    """A signed image with a private element that belongs to the content."""
    creator, element = text(0x00290010, "LO", "SIEMENS CSA HEADER"), text(PRIVATE, "CS", "IMAGE NUM 4")
    return signed(part10(slice_with(CREATOR_VERSION_UID, creator, element)))


def shown(data: bytes) -> list[str]:
    report = report_on(data)
    return text_of(FILE, report, evaluate(report, Receipt(NOW), None, NOW), None).splitlines()


def test_an_untouched_image_is_not_called_restored() -> None:
    assert shown(honest())[0].startswith("image.dcm: VALID: it is as it was signed, by the device that it names")
    assert "restored" not in "\n".join(shown(honest()))


def test_a_restored_image_does_not_read_like_an_untouched_one() -> None:
    lines = shown(rewritten(with_unknown_vr(PRIVATE))(honest()))
    (reason,) = (line for line in lines if "(0029,1008)" in line)

    assert lines[0].startswith("image.dcm: VALID: ")
    assert lines[0].endswith("(restored: see below)")
    assert reason.strip().startswith("integrity flagged:")
    assert "What a viewer shows of it as it is stored was not compared." in reason


def test_why_a_signature_is_wrong_is_said_once_and_does_not_restore_it() -> None:
    lines = shown(rewritten(with_unknown_vr(PRIVATE, PIXEL_SPACING))(honest()))
    (reason,) = (line for line in lines if "(0028,0030), (0029,1008)" in line)

    assert lines[0].startswith("image.dcm: BROKEN: ")
    assert "restored" not in lines[0]
    assert reason.strip().startswith("diagnosis:")


def test_a_change_of_the_value_is_not_restored_with_the_vr() -> None:
    changed = one_after_the_other(rewritten(with_unknown_vr(PRIVATE)), rewritten(with_value(PIXEL_DATA, bytes(32))))
    assert shown(changed(honest()))[0].startswith("image.dcm: BROKEN: ")


def test_what_the_policy_makes_of_it_stands_beside() -> None:
    line = headline(FILE, Verdict.VALID, Action.FLAG, restored=True)
    assert line.endswith("your anchor (restored: see below, flag)")


def line_about_the_key(data: bytes) -> str:
    (line,) = (line for line in shown(data) if line.startswith("      key: "))
    return line


def test_when_a_key_might_sign_is_said_with_what_that_rests_on() -> None:
    """RFC 3280 4.2.1.4: such a key signs for a shorter time than its certificate is valid."""
    period = "key: to be used from 2026-10-22 12:00 UTC until 2026-10-29 12:00 UTC"
    after = FORMER_KEY_UNTIL + timedelta(days=1)

    assert f"{period}; the signer says that it was" in line_about_the_key(slice_of_a_former_key())
    assert f"{period}; the signer says that it was" in line_about_the_key(stamped(after)(slice_of_a_former_key()))
    in_time = line_about_the_key(stamped(SIGNED_AT)(slice_of_a_former_key()))
    assert f"{period}; the time stamp proves that it was not used later" in in_time
    assert f"{period}; see below" in line_about_the_key(resigned(former_key, after)(honest()))


def test_of_a_key_without_a_period_nothing_is_said() -> None:
    assert not [line for line in shown(honest()) if "key: " in line]
