"""The frames between worker and keyholder: one fixed layout, and nothing else is taken."""

from __future__ import annotations

import pytest

from agent.daemon.wire import (
    REPLY_LIMIT,
    REQUEST_SIZE,
    HashName,
    Identity,
    Operation,
    Protection,
    Request,
    Role,
    Signature,
    WireError,
    decode_answer,
    decode_signature,
    encode_answer,
    encode_refusal,
    encode_signature,
)
from agent.errors import SigningError
from enroll.keystore import base

SIGN = Request(
    Operation.SIGN,
    role=Role.SYNTHESIS,
    hash_name=HashName.SHA384,
    digest=bytes(range(48)),
    device_unnamed=True,
    reference="1.2.840.10008.5.1.4.1.1.2",
)


@pytest.mark.parametrize(
    "request_",
    [
        SIGN,
        Request(Operation.STATUS),
        *(Request(Operation.CERTIFICATES, identity=identity) for identity in Identity),
        *(Request(Operation.AUTHORIZE, role=role) for role in Role),
    ],
)
def test_a_request_arrives_as_it_was_sent(request_: Request) -> None:
    frame = request_.encode()

    assert len(frame) == REQUEST_SIZE
    received = Request.decode(frame)
    assert (received.operation, received.role, received.identity) == (
        request_.operation,
        request_.role,
        request_.identity,
    )
    assert received.reference == request_.reference
    if request_.operation is Operation.SIGN:
        assert received == request_


def test_only_digits_and_dots_of_a_reference_are_sent() -> None:
    """PS3.5 9.1: a UID has no other characters; what an instance holds there must not reach the audit trail."""
    frame = Request(Operation.SIGN, digest=bytes(32), reference='1.2"\n,3' + "4" * 100).encode()

    assert Request.decode(frame).reference == "1.23" + "4" * 60


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        SIGN.encode()[:-1],
        SIGN.encode() + b"\0",
        b"\2" + SIGN.encode()[1:],
        SIGN.encode()[:1] + b"\x09" + SIGN.encode()[2:],
        SIGN.encode()[:2] + b"\x04" + SIGN.encode()[3:],
        SIGN.encode()[:3] + b"\x05" + SIGN.encode()[4:],
        SIGN.encode()[:4] + b"\x03" + SIGN.encode()[5:],
        SIGN.encode()[:5] + b"\x02" + SIGN.encode()[6:],
        SIGN.encode()[:-64] + b"1.2.x".ljust(64, b"\0"),
        SIGN.encode()[:-64] + b"1\0.2".ljust(64, b"\0"),
        SIGN.encode()[:-65] + b"\1" + SIGN.encode()[-64:],
    ],
    ids=[
        "empty",
        "short",
        "long",
        "version",
        "operation",
        "role",
        "identity",
        "hash",
        "flag",
        "letters in the reference",
        "NUL in the reference",
        "digest longer than its hash",
    ],
)
def test_anything_else_is_refused(frame: bytes) -> None:
    with pytest.raises(WireError):
        Request.decode(frame)


def test_old_hashes_cannot_be_named() -> None:
    """PS3.15 C.2 still lists RIPEMD-160, MD5 and SHA-1; nothing here can ask for them."""
    assert set(HashName) == {"sha256", "sha384", "sha512"}


def test_a_signature_arrives_as_it_was_sent() -> None:
    signature = Signature(b"s" * 512, b"c" * 3000, 2**31, Protection.MEMORY)
    frame = encode_signature(signature)

    assert len(frame) < REPLY_LIMIT
    assert decode_signature(frame) == signature


def test_protection_is_told_in_the_words_of_the_key_stores() -> None:
    """A worker knows no key store."""
    assert [level.value for level in Protection] == [level.value for level in base.Protection]


def test_a_refusal_arrives_as_an_error() -> None:
    frame = encode_refusal("role-not-allowed", "Nein, weil € fehlt.", "Ask.")

    with pytest.raises(SigningError, match="Nein, weil € fehlt") as refused:
        decode_answer(frame)
    assert (refused.value.code, refused.value.remedy) == ("role-not-allowed", "Ask.")


def test_a_refusal_always_fits_a_frame() -> None:
    assert len(encode_refusal("code", "\U0001f600" * 100_000, "\n" * 100_000)) < REPLY_LIMIT


def test_an_answer_arrives_as_it_was_sent() -> None:
    assert decode_answer(encode_answer(b"payload")) == b"payload"
