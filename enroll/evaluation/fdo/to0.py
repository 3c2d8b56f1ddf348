"""An owner registers at a rendezvous server (TO0): FDO 1.1, 5.3. NOT FOR PRODUCTION."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from enroll.evaluation.fdo.to0_messages import read_seconds_message, redirection, to0d
from enroll.fdo import cbor
from enroll.fdo.conversation import Conversation
from enroll.fdo.cose import sign1
from enroll.fdo.messages import MessageType, read_nonce_message
from enroll.fdo.rendezvous import OwnerAddress
from enroll.fdo.transport import Channel
from enroll.fdo.voucher import Voucher
from enroll.keystore.base import PrivateKey

WAIT_SECONDS = 7 * 24 * 60 * 60


@dataclass(frozen=True)
class Registration:
    """How an owner makes itself known.

    Args:
        connect: Makes a channel to the rendezvous server.
        addresses: Where the owner listens.
        wait_seconds: How long it wants to be known.
    """

    connect: Callable[[], Channel]
    addresses: tuple[OwnerAddress, ...]
    wait_seconds: int = WAIT_SECONDS

    def register(self, voucher: Voucher, owner_key: PrivateKey) -> int:
        """Messages 20 to 23.

        Args:
            voucher: Of the device that is awaited.
            owner_key: Of the last owner in it.

        Returns:
            Seconds for which the rendezvous server knows it now.

        Raises:
            EnrollmentError: No answer, or none that the protocol allows.
            Fault: The voucher does not hold.
        """
        chain = voucher.verify()
        with closing(self.connect()) as channel, Conversation(channel) as conversation:
            nonce = read_nonce_message(cbor.read(conversation.ask(MessageType.TO0_HELLO, cbor.encode([]))))
            signed_part = to0d(voucher, self.wait_seconds, nonce)
            payload = redirection(self.addresses, chain.algorithm, signed_part)
            redirect = sign1(owner_key, chain.owner.signature_type, payload)
            body = cbor.encode([signed_part, cbor.Raw(redirect)])
            return read_seconds_message(cbor.read(conversation.ask(MessageType.TO0_OWNER_SIGN, body)))
