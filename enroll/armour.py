"""PEM (RFC 7468) as it arrives by mail or from a clipboard, and DER beside it.

What is forgiven is what mail programs and editors do to a text: other ends of lines, lines joined or broken, quoting
with ">", a byte order mark, UTF-16, long dashes, and "=3D" for "=" (RFC 2045 6.7). What is inside has to be DER to the
byte. Text around the blocks is not looked at.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from enroll import der

BLOCKS_LIMIT = 32

_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_MENDED = str.maketrans({"\u2010": "-", "\u2011": "-", "\u2013": "--", "\u2014": "--", "\u200b": None, "\ufeff": None})
_QUOTING = re.compile(r"^[ \t>|]+", re.MULTILINE)
_MARKER = re.compile(r"-{4,6}(BEGIN|END) ([A-Z0-9 #]{1,40}?)-{4,6}")


@dataclass(frozen=True)
class Block:
    """One PEM block: its label, and the bytes that it armours."""

    label: str
    content: bytes


def read_blocks(data: bytes) -> tuple[Block, ...]:
    """All PEM blocks of a text, in their order.

    Args:
        data: Whoever reads it has bounded it.

    Raises:
        ValueError: It is no text, there are more than `BLOCKS_LIMIT`, or one is damaged.
    """
    codec = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    text = _QUOTING.sub("", data.decode(codec, errors="replace").translate(_MENDED))
    blocks: list[Block] = []
    begun: re.Match[str] | None = None
    for marker in _MARKER.finditer(text):
        if marker[1] == "BEGIN":
            begun = marker
            continue
        if begun is None or begun[2] != marker[2]:
            raise ValueError(f"END {marker[2]} without its beginning")
        if len(blocks) == BLOCKS_LIMIT:
            raise ValueError(f"more than {BLOCKS_LIMIT} PEM blocks")
        body = text[begun.end() : marker.start()]
        blocks.append(Block(marker[2], base64.b64decode("".join(body.split()).replace("=3D", "="), validate=True)))
        begun = None
    if begun is not None:
        raise ValueError(f"BEGIN {begun[2]} without its end")
    return tuple(blocks)


def is_der(data: bytes) -> bool:
    """Whether a file is one DER value by itself, and not a text."""
    return data[:1] == bytes((der.SEQUENCE,)) and der.is_one_value(data)
