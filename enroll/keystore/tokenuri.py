"""The URI of a key or a secret in a token (RFC 7512).

    pkcs11:token=scanseal;object=scanseal-device;id=%01%02;type=private

Read strictly: only the attributes that say which key is meant. A query part would hold a PIN or the path of a library,
and neither belongs into a file that names a key; so messages never repeat the URI.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, unquote_to_bytes

from enroll.errors import KeyNotFound

SCHEME = "pkcs11"
OWN_LABEL = "scanseal-"  # begins the label of every key made here
URI_LIMIT = 1024  # characters
TOKEN_LABEL_LIMIT = 32  # bytes; CK_TOKEN_INFO

# RFC 7512 2.3: an attribute and its value; pk11-pchar without "&", which has its own use in queries.
_ATTRIBUTE = re.compile(r"([a-z]+)=((?:[A-Za-z0-9._~:\[\]@!$'()*+,=-]|%[0-9A-Fa-f]{2})+)")
_KNOWN = {"token", "object", "id", "type"}


class ObjectType(StrEnum):
    """The types of RFC 7512 2.3 that are in use."""

    PRIVATE = "private"
    SECRET_KEY = "secret-key"  # noqa: S105 - a type, no secret


@dataclass(frozen=True)
class TokenUri:
    """Which key or secret of which token.

    Args:
        token: CKA_LABEL of the token.
        label: CKA_LABEL of the key, where it is known.
        identifier: CKA_ID of the key, where it is known.
        type: Whether it is a private key or a secret.
    """

    token: str
    label: str | None
    identifier: bytes | None
    type: ObjectType = ObjectType.PRIVATE

    @classmethod
    def parse(cls, uri: str) -> TokenUri:
        """Read a URI.

        Raises:
            KeyNotFound: It is not of the form above; the message says where, and does not repeat the URI.
        """
        scheme, _, path = uri.partition(":")
        if scheme != SCHEME or len(uri) > URI_LIMIT:
            raise _refused(f"it begins with {SCHEME}: and has at most {URI_LIMIT} characters")
        values: dict[str, bytes] = {}
        for part in path.split(";"):
            attribute = _ATTRIBUTE.fullmatch(part)
            if attribute is None or attribute[1] not in _KNOWN or attribute[1] in values:
                raise _refused("it has the attributes token, object, id and type, each once, and no query")
            values[attribute[1]] = unquote_to_bytes(attribute[2])
        if len(values.get("token", b"")) not in range(1, TOKEN_LABEL_LIMIT + 1):
            raise _refused(f"token is a label of 1 to {TOKEN_LABEL_LIMIT} bytes")
        type_ = _text(values.get("type", b"private"))
        if type_ not in list(ObjectType):
            raise _refused(f"type is {' or '.join(ObjectType)}")
        label = values.get("object")
        if label is None and "id" not in values:
            raise _refused("it has object or id")
        return cls(_text(values["token"]), None if label is None else _text(label), values.get("id"), ObjectType(type_))

    def __str__(self) -> str:
        parts = [f"token={quote(self.token, safe='')}"]
        if self.label is not None:
            parts.append(f"object={quote(self.label, safe='')}")
        if self.identifier is not None:
            parts.append("id=" + "".join(f"%{byte:02X}" for byte in self.identifier))
        return f"{SCHEME}:{';'.join(parts)};type={self.type}"


def _text(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused("labels are UTF-8") from error
    if not text.isprintable():
        raise _refused("labels are printable")
    return text


def _refused(rule: str) -> KeyNotFound:
    return KeyNotFound("This URI names no key in a token.", remedy=f"See RFC 7512; {rule}.")
