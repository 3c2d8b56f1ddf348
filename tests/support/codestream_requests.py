"""Small requests to decode, for what looks at codestreams."""

from __future__ import annotations

import struct

import pytest

from agent.dicom.diagnosis.codestream_shape import check_shape
from agent.dicom.diagnosis.decoding_request import Request


def request(transfer_syntax: str, photometric: str = "MONOCHROME2", samples: int = 1, bits: int = 16) -> Request:
    """What a data set says of 2 x 2 pixels."""
    return Request(transfer_syntax, photometric, 2, 2, samples, bits, bits, signed=False, seconds=1, frames=())


def refused(said: Request, frame: bytes) -> None:
    """Assert that nothing is restored from a frame."""
    with pytest.raises((ValueError, IndexError, KeyError, struct.error)):
        check_shape(said, frame)
