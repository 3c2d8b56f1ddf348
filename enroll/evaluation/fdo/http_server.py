"""The servers behind HTTP or HTTPS: POST /fdo/101/msg/<number>: FDO 1.1, 4.3. NOT FOR PRODUCTION.

Message 255 goes out with the status 500, as other implementations do and expect it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from enroll.evaluation.fdo.sessions import Reply, Services
from enroll.evaluation.https_server import LOG, EvaluationHandler, HttpsServer, Rejection
from enroll.fdo.fault import ErrorCode
from enroll.fdo.messages import MESSAGE_LIMIT, PROTOCOL_VERSION, ErrorMessage, MessageType
from enroll.fdo.transport import CONTENT_TYPE

_PATH = re.compile(rf"/fdo/{PROTOCOL_VERSION}/msg/(\d{{1,3}})")
_TOKEN = re.compile(r"Bearer ([A-Za-z0-9_-]{1,64})")


class FdoServer(HttpsServer):
    """The server; runs between `start` and `stop`, in a `with` block, or in `serve_forever`.

    Args:
        services: Behind it.
        context: The TLS of its side; None for HTTP. The messages prove themselves.
        address: Host and port; port 0 takes a free one.
        log: Gets one line for each request.
    """

    def __init__(
        self,
        services: Services,
        context: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
        log: Callable[[str], None] = LOG.info,
    ) -> None:
        super().__init__(context, partial(_Handler, services), address, log)


class _Handler(EvaluationHandler):
    """One connection."""

    server_version = "scanseal-evaluation-fdo"

    def __init__(self, services: Services, *connection: Any) -> None:
        self._services = services
        super().__init__(*connection)

    def post(self) -> None:
        """Answer a message."""
        body = self.body()  # first: a connection that is closed with something unread may lose the answer
        path = _PATH.fullmatch(self.path)
        if path is None:
            raise Rejection(HTTPStatus.NOT_FOUND, "There is no such message of FDO 1.1.")
        number = int(path[1])
        if number > MessageType.ERROR:
            raise Rejection(HTTPStatus.NOT_FOUND, "There is no such message of FDO 1.1.")
        if self.headers.get_content_type() != CONTENT_TYPE or len(body) > MESSAGE_LIMIT:
            error = ErrorMessage(ErrorCode.MESSAGE_BODY, number, "The body is no CBOR, or too long.")
            self._reply(Reply(MessageType.ERROR, error.encode()))
            return
        token = _TOKEN.fullmatch(self.headers.get("Authorization", ""))
        self._reply(self._services.answer(number, token[1] if token else "", body))

    def _reply(self, reply: Reply) -> None:
        headers = {"Content-Type": CONTENT_TYPE, "Message-Type": str(int(reply.number))}
        if reply.token:
            headers["Authorization"] = f"Bearer {reply.token}"
        is_error = reply.number == MessageType.ERROR and reply.body
        self.send(HTTPStatus.INTERNAL_SERVER_ERROR if is_error else HTTPStatus.OK, headers, reply.body)
