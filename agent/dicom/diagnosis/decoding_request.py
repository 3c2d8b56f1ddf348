"""What the process that decodes frames is asked for: what the data set says of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Request:
    """What is to be decoded.

    Args:
        transfer_syntax: UID of how it is compressed.
        photometric_interpretation: The first value of (0028,0004).
        rows: Rows (0028,0010).
        columns: Columns (0028,0011).
        samples: Samples per Pixel (0028,0002).
        bits_allocated: Bits Allocated (0028,0100), a multiple of 8.
        bits_stored: Bits Stored (0028,0101).
        signed: Whether Pixel Representation (0028,0103) says so.
        seconds: Processor time that it may take.
        frames: Bytes of each compressed frame.
    """

    transfer_syntax: str
    photometric_interpretation: str
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    seconds: int
    frames: tuple[int, ...]

    @property
    def samples_of_frame(self) -> int:
        """How many samples a frame has."""
        return self.rows * self.columns * self.samples

    @property
    def frame_size(self) -> int:
        """Bytes of a decoded frame."""
        return self.samples_of_frame * self.bits_allocated // 8

    def check_depth(self, precision: int) -> None:
        """Check the bits of a sample in a codestream.

        Raises:
            ValueError: A decoder that goes by them would not find what the data set says.
        """
        if precision > self.bits_allocated or (precision > 8) != (self.bits_allocated > 8):
            raise ValueError("precision")

    def encoded(self) -> bytes:
        """The request as it is sent."""
        return json.dumps(asdict(self)).encode("ascii") + b"\n"

    @classmethod
    def decoded(cls, line: bytes) -> Request:
        """The request that was sent."""
        return cls(**json.loads(line))
