"""TO2, the device's side: the owner proves itself, then the device; then they talk: FDO 1.1, 5.5 and 5.6.

    with Session.begin(channel, credential, proofs, terms) as session:      60 to 65
        session.talk(modules)                                               66 to 69
        session.finish()                                                    70 and 71

Every check of FDO 1.1 that a device must make is made, in the order of the messages. Whatever is wrong is told to the
owner (message 255), and nothing has changed on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from enroll.fdo.cose import Sign1
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.key_exchange import Answer, KeyExchangeSuite
from enroll.fdo.service_info import DeviceModule
from enroll.fdo.transport import Channel
from enroll.fdo.tunnel import CipherSuite, Random
from enroll.fdo.voucher import OwnerChain
from enroll.keystore.base import HmacKey, PrivateKey, PublicKey

KeyExchangeAnswer = Callable[[KeyExchangeSuite, bytes, PublicKey], Answer]


@dataclass(frozen=True)
class Terms:
    """What the device asks for and what it allows.

    Args:
        key_exchange: Suite of the key exchange.
        cipher: Suite of the tunnel.
        service_info_size: Bytes of service info in one message that the device takes.
        reuse: Whether the owner may leave GUID, rendezvous and key as they are.
        judge: Says whether this owner may have the device; raises where it may not. Called after the owner has proved
            itself, before the device does.
        redirect: The to1d that led here; None where the rendezvous server was bypassed.
        random: Makes nonces and initialization vectors.
        agree: Answers the key exchange.
    """

    key_exchange: KeyExchangeSuite
    cipher: CipherSuite
    service_info_size: int
    reuse: bool
    judge: Callable[[OwnerChain], None]
    redirect: Sign1 | None
    random: Random = field(repr=False)
    agree: KeyExchangeAnswer = field(repr=False)


class Session:
    """One run of TO2; on an error inside the `with` block the owner is told (message 255)."""

    @classmethod
    def begin(
        cls, channel: Channel, credential: DeviceCredential, key: PrivateKey, secret: HmacKey, terms: Terms
    ) -> Self:
        """Messages 60 to 65.

        Args:
            channel: To the owner.
            credential: The device as this owner should know it.
            key: The device key.
            secret: The HMAC secret.
            terms: What is asked for and allowed.

        Raises:
            ErrorReceived: The owner said no.
            ProtocolViolation: The owner broke the protocol, or did not prove what it has to; it has been told.
            ServerUnreachable: No answer.
            ScansealError: `terms.judge` refused the owner.
        """
        raise NotImplementedError

    @property
    def owner(self) -> OwnerChain:
        """Who has proved to be the owner."""
        raise NotImplementedError

    @property
    def next_credential(self) -> DeviceCredential:
        """The credential from message 71 on, without `owner`; the same GUID where it is used again."""
        raise NotImplementedError

    def talk(self, modules: Sequence[DeviceModule]) -> None:
        """Messages 66 to 69, until the owner is done and every module is complete.

        Raises:
            EnrollmentError: As `begin`; or the owner is done too early.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Messages 70 and 71. Before it the next credential is on the disk, afterwards it is the one in use.

        Raises:
            EnrollmentError: As `begin`; the owner may or may not have finished.
        """
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError
