"""TO1: a rendezvous server says where the owner is: FDO 1.1, 5.4."""

from __future__ import annotations

from enroll.fdo.cose import Sign1
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.transport import Channel
from enroll.keystore.base import PrivateKey


def find_owner(channel: Channel, credential: DeviceCredential, key: PrivateKey) -> Sign1:
    """Messages 30 to 33.

    Args:
        channel: To the rendezvous server.
        credential: Which device asks.
        key: The device key.

    Returns:
        to1d. Who has signed it can be judged only when the owner has shown its voucher.

    Raises:
        EnrollmentError: No answer, or none that the protocol allows; the server has been told.
    """
    raise NotImplementedError
