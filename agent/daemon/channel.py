"""The worker's end of a signing channel."""

from __future__ import annotations

import socket
import struct

from agent.daemon.connection import ConnectionLost
from agent.daemon.wire import (
    REPLY_LIMIT,
    HashName,
    Identity,
    Operation,
    Request,
    Role,
    Signature,
    decode_answer,
    decode_signature,
)
from agent.errors import SigningError

LONGEST_SIGNATURE = 60  # seconds; slow tokens need some when many callers wait
SHORT_REPLY = 32 * 1024  # bytes; all but certificate chains


class SigningChannel:
    """Asks the keyholder on behalf of the one caller that the channel is bound to."""

    def __init__(self, channel: socket.socket) -> None:
        channel.settimeout(None)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", LONGEST_SIGNATURE, 0))
        self._channel = channel
        self._allowed: set[Role] = set()
        self._late = False  # a reply may still come, which must not be taken for the next one

    def authorize(self, role: Role) -> None:
        """Find out early whether the caller may use `role`; the keyholder checks again when it signs.

        Raises:
            SigningError: It may not.
        """
        if role not in self._allowed:
            decode_answer(self._ask(Request(Operation.AUTHORIZE, role=role)))
            self._allowed.add(role)

    def sign(
        self, role: Role, hash_name: HashName, digest: bytes, reference: str = "", *, device_unnamed: bool = False
    ) -> Signature:
        """Have a digest signed.

        Args:
            role: What it is signed as.
            hash_name: What made the digest.
            digest: The digest.
            reference: SOP Instance UID for the audit trail.
            device_unnamed: Whether the instance does not say which device made it, for the audit trail.

        Raises:
            SigningError: The keyholder cannot, or may not for this caller.
        """
        request = Request(
            Operation.SIGN,
            role=role,
            hash_name=hash_name,
            digest=digest,
            device_unnamed=device_unnamed,
            reference=reference,
        )
        return decode_signature(self._ask(request))

    def certificates(self, identity: Identity) -> bytes:
        """The certificates of an identity, its own first, in PEM.

        Raises:
            SigningError: It has none.
        """
        return decode_answer(self._ask(Request(Operation.CERTIFICATES, identity=identity), REPLY_LIMIT))

    def status(self) -> bytes:
        """The state of the agent, in JSON."""
        return decode_answer(self._ask(Request(Operation.STATUS)))

    def _ask(self, request: Request, limit: int = SHORT_REPLY) -> bytes:
        if self._late:
            raise ConnectionLost
        try:
            self._channel.send(request.encode())
            reply, _, flags, _ = self._channel.recvmsg(limit)
        except BlockingIOError as error:
            self._late = True
            raise SigningError(
                f"The key store did not answer within {LONGEST_SIGNATURE} seconds.",
                remedy="Look after the token; acquisition goes on without signatures.",
                code="signing-timeout",
            ) from error
        except OSError as error:
            raise ConnectionLost from error
        if not reply or flags & socket.MSG_TRUNC:
            raise ConnectionLost
        return reply
