"""Text values as characters (PS3.3 C.12.1.1.2): for comparing and showing, never for hashing."""

from __future__ import annotations

from collections.abc import Sequence

# Defined terms without code extensions, and the single-byte ones with them. What switches character sets inside a
# value (ISO 2022) is not followed: such a value shows replacement characters and compares with nothing.
_CODECS = {
    "": "ascii",
    "ISO_IR 6": "ascii",
    "ISO_IR 100": "latin_1",
    "ISO_IR 101": "iso8859_2",
    "ISO_IR 109": "iso8859_3",
    "ISO_IR 110": "iso8859_4",
    "ISO_IR 144": "iso8859_5",
    "ISO_IR 127": "iso8859_6",
    "ISO_IR 126": "iso8859_7",
    "ISO_IR 138": "iso8859_8",
    "ISO_IR 148": "iso8859_9",
    "ISO_IR 203": "iso8859_15",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 166": "tis_620",
    "ISO_IR 192": "utf_8",
    "GB18030": "gb18030",
    "GBK": "gbk",
}


def decoded(value: bytes, character_sets: Sequence[str]) -> str:
    """The characters of a value; what cannot be shown is replaced, so that it can be printed anywhere.

    Args:
        value: As stored.
        character_sets: Specific Character Set (0008,0005), the values in order.
    """
    first = character_sets[0].replace("ISO 2022 IR", "ISO_IR") if character_sets else ""
    text = value.decode(_CODECS.get(first, "ascii"), "replace")
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
