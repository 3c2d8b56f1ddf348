"""Connections of the client side: one handshake at a time, and a failure of our own key under its own name.

As soon as OpenSSL has loaded pkcs11-provider and a key, it may have the token verify signatures of others as well, on
any connection of the process (ADR 21). Where several threads are in the token at once, verification fails now and then,
and processes have crashed. So there is one handshake at a time in a process, whatever its key.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from enum import StrEnum

from enroll.errors import KeyStoreError

_HANDSHAKE = threading.Lock()


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


class ClientContext(ssl.SSLContext):
    """The trust and the identity of this side; `enroll.tls.client_context` makes one.

    `route` says how it reaches its key. `failure_of_key` says whether the error of a handshake is one of the key.
    """

    sslsocket_class = ClientSocket
    route = RouteName.NONE
    failure_of_key: Callable[[ssl.SSLError], KeyStoreError | None] = staticmethod(lambda _: None)
