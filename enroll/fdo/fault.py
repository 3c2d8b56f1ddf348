"""What breaks the protocol, with the number that the other side is told: FDO 1.1, 3.7 "Error"."""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """The codes of message 255."""

    INVALID_TOKEN = 1
    INVALID_VOUCHER = 2
    INVALID_OWNER_SIGNATURE = 3
    INVALID_IP_ADDRESS = 4
    INVALID_GUID = 5
    NOT_FOUND = 6
    MESSAGE_BODY = 100
    INVALID_MESSAGE = 101
    REUSE_REFUSED = 102
    INTERNAL = 500


class Fault(Exception):
    """What was received is not what it has to be. Never leaves this package: its users say it in the error tree.

    Args:
        what: One sentence for a person, without a secret.
        code: For message 255.
    """

    def __init__(self, what: str, code: ErrorCode = ErrorCode.INVALID_MESSAGE) -> None:
        super().__init__(what)
        self.what = what
        self.code = code
