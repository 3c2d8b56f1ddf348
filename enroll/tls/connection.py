"""Connections of the client side: one handshake at a time, and a failure of our own key under its own name.

As soon as OpenSSL has loaded pkcs11-provider and a key, it may have the token verify signatures of others as well, on
any connection of the process (ADR 21). Where several threads are in the token at once, verification fails now and then,
and processes have crashed. So there is one handshake at a time in a process, whatever its key.
"""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Self

from enroll.errors import EnrollmentError, KeyStoreError

_HANDSHAKE = threading.Lock()
_DER = 2  # of OpenSSL's two encodings


class RouteName(StrEnum):
    """The ways by which a key authenticates a TLS client."""

    KEY_FILE = "key-file"
    PROVIDER = "openssl-provider"
    SIGNER = "sslcontext"
    NONE = "none"


class ClientSocket(ssl.SSLSocket):
    """A connection of a `ClientContext`."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the base class
        """Agree with the server; see the base class.

        Raises:
            KeyStoreError: The key of this side could not sign.
            EnrollmentError: It is not the server that the context wants.
            TimeoutError: Other handshakes take too long.
        """
        timeout = self.gettimeout()
        if not _HANDSHAKE.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError("other connections take too long")
        try:
            super().do_handshake(block)
        except ssl.SSLError as error:
            failure = self.context.failure_of_key(error) if isinstance(self.context, ClientContext) else None
            if failure is None:
                raise
            self.close()
            raise failure from error
        finally:
            _HANDSHAKE.release()
        if isinstance(self.context, ClientContext):
            self._check_server(self.context)

    def presented(self) -> tuple[bytes, ...]:
        """The certificates that the server showed, its own first, in DER. Only that one is proved, to be its own."""
        if sys.version_info >= (3, 13):
            return tuple(self.get_unverified_chain())
        # Before 3.13 only the object below has them, and nothing else tells what a server showed that is not verified.
        chain = self._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
        return tuple(certificate.public_bytes(_DER) for certificate in chain or ())

    def _check_server(self, context: ClientContext) -> None:
        try:
            context.check_server(self)
        except EnrollmentError:
            self.close()
            raise


class ClientContext(ssl.SSLContext):
    """The trust and the identity of this side; `enroll.tls.client_context` makes one.

    `route` says how it reaches its key. `failure_of_key` says whether the error of a handshake is one of the key.
    `check_server` is called after each handshake, before anything is sent; it raises EnrollmentError for a wrong one.
    """

    sslsocket_class = ClientSocket
    route = RouteName.NONE
    failure_of_key: Callable[[ssl.SSLError], KeyStoreError | None] = staticmethod(lambda _: None)
    check_server: Callable[[ClientSocket], None] = staticmethod(lambda _: None)

    @classmethod
    def without_trust(cls) -> Self:
        """TLS 1.2 or later that proves nothing: for what proves itself, or with a `check_server`."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # the server could show another certificate afterwards
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
