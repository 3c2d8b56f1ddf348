"""TO1: a rendezvous server says where the owner is: FDO 1.1, 5.4."""

from __future__ import annotations

from enroll.fdo import cbor
from enroll.fdo.conversation import Conversation
from enroll.fdo.cose import Sign1, sign1
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.fault import Fault
from enroll.fdo.messages import EntityAttestationToken, HelloRv, HelloRvAck, MessageType
from enroll.fdo.public_key import signature_type
from enroll.fdo.rendezvous import read_redirect
from enroll.fdo.transport import Channel
from enroll.keystore.base import PrivateKey


def find_owner(channel: Channel, credential: DeviceCredential, key: PrivateKey) -> Sign1:
    """Messages 30 to 33.

    Args:
        channel: To the rendezvous server.
        credential: Which device asks.
        key: The device key.

    Returns:
        to1d, well formed. Who has signed it can be judged only when the owner has shown its voucher.

    Raises:
        EnrollmentError: No answer, or none that the protocol allows; the server has been told.
        KeyStoreError: The device key cannot sign.
    """
    kind = signature_type(key.public_key())
    with Conversation(channel) as conversation:
        answer = conversation.ask(MessageType.TO1_HELLO_RV, HelloRv(credential.guid, kind).encode())
        ack = HelloRvAck.read(cbor.read(answer))
        if ack.signature_type is not kind:
            raise Fault("The rendezvous server wants another kind of signature than the device can make.")
        token = EntityAttestationToken(ack.nonce, credential.guid).encode()
        answer = conversation.ask(MessageType.TO1_PROVE_TO_RV, sign1(key, kind, token))
        redirect = Sign1.read(cbor.read(answer))
        read_redirect(redirect)
        return redirect
