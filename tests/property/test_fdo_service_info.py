"""Service info of any kind and size fits into messages, and comes out of them as it was: FDO 1.1, 3.8 and 5.6."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cbor2
from hypothesis import given
from hypothesis import strategies as st

from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.key_exchange import SharedSecret
from enroll.fdo.messages import MESSAGE_LIMIT
from enroll.fdo.service_info import VALUE_LIMIT, Inbox, Outbox, Statement
from enroll.fdo.to2_messages import SERVICE_INFO_KEY_LIMIT, DeviceServiceInfo, OwnerServiceInfo, ServiceInfo
from enroll.fdo.tunnel import CipherSuite, open_tunnel

NAMES = st.text(st.characters(codec="utf-8", exclude_characters=":"), min_size=1, max_size=15)
VALUES = st.one_of(
    st.binary(max_size=3000),
    st.text(max_size=800),
    st.integers(-(2**64), 2**64 - 1),
    st.booleans(),
    st.lists(st.integers(0, 300), max_size=40),
    st.dictionaries(st.integers(-9, 9), st.binary(max_size=30), max_size=4),
)
STATEMENTS = st.lists(st.builds(Statement, NAMES, NAMES, VALUES), max_size=12)
SIZES = st.one_of(st.integers(256, 65535), st.sampled_from([256, 257, 300, 512, 1300, 65535]))

Said = tuple[str, str, bytes]


def said(statements: list[Statement]) -> list[Said]:
    return [(each.module, each.name, cbor2.dumps(each.value)) for each in statements]


def read_back(messages: list[tuple[bool, tuple[ServiceInfo, ...]]]) -> list[Said]:
    inbox = Inbox()
    complete = [each for is_more, info in messages for each in inbox.put(info, is_more=is_more)]
    return [(module, name, value.raw) for module, name, value in complete]


def sent(statements: list[Statement], size: int) -> list[tuple[bool, tuple[ServiceInfo, ...]]]:
    outbox = Outbox(size)
    outbox.put(statements)
    messages = [outbox.take()]
    while messages[-1][0]:
        messages.append(outbox.take())
    return messages


@given(STATEMENTS, SIZES)
def test_what_is_sent_arrives_in_its_order(statements: list[Statement], size: int) -> None:
    assert read_back(sent(statements, size)) == said(statements)


@given(STATEMENTS, SIZES)
def test_no_message_is_larger_than_the_other_side_takes(statements: list[Statement], size: int) -> None:
    for is_more, info in sent(statements, size):
        assert len(DeviceServiceInfo(is_more, info).encode()) <= size
        assert len(OwnerServiceInfo(is_more, not is_more, info).encode()) <= size


@given(STATEMENTS, SIZES)
def test_every_message_that_promises_more_says_something_and_no_piece_is_empty(
    statements: list[Statement], size: int
) -> None:
    messages = sent(statements, size)
    assert all(info for is_more, info in messages if is_more)
    assert all(piece.value for _, info in messages for piece in info)


@given(STATEMENTS, SIZES)
def test_a_value_that_fits_into_one_message_is_not_split(statements: list[Statement], size: int) -> None:
    # Not every implementation puts together what comes in two messages.
    pieces = [(piece.key, piece.value) for _, info in sent(statements, size) for piece in info]
    for module, name, value in said(statements):
        alone = DeviceServiceInfo(is_more=True, info=(ServiceInfo(f"{module}:{name}", value),)).encode()
        if len(alone) <= size - 8:  # what the heads of the largest message have more than those of this one
            assert (f"{module}:{name}", value) in pieces


@given(STATEMENTS, SIZES)
def test_a_value_is_split_only_at_the_end_of_a_message(statements: list[Statement], size: int) -> None:
    # Whoever puts pieces together needs to remember no more than the last key of the message before.
    for number, (_, info) in enumerate(sent(statements, size)):
        for place, piece in enumerate(info):
            assert _is_item(piece.value) or place == len(info) - 1 or (place == 0 and number > 0)


@given(st.sampled_from(CipherSuite), st.integers(50_000, 200_000), st.integers(60_000, 70_000))
def test_no_body_is_larger_than_a_message_may_be(suite: CipherSuite, length: int, size: int) -> None:
    tunnel = open_tunnel(suite, SharedSecret(b"secret"))
    for is_more, info in sent([Statement("m", "k", bytes(length))], size):
        assert len(tunnel.encrypt(DeviceServiceInfo(is_more, info).encode())) <= MESSAGE_LIMIT


@given(STATEMENTS, st.data())
def test_it_does_not_matter_where_values_are_cut(statements: list[Statement], data: st.DataObject) -> None:
    pieces: list[ServiceInfo] = []
    for module, name, value in said(statements):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(value)), max_size=5)))
        ends = [0, *cuts, len(value)]
        pieces += [ServiceInfo(f"{module}:{name}", value[begin:end]) for begin, end in pairwise(ends)]
    breaks = [0, *sorted(data.draw(st.lists(st.integers(0, len(pieces)), max_size=5))), len(pieces)]
    messages = [tuple(pieces[begin:end]) for begin, end in pairwise(breaks)]
    last = len(messages) - 1
    assert read_back([(number < last, info) for number, info in enumerate(messages)]) == said(statements)


@given(key=st.text(max_size=SERVICE_INFO_KEY_LIMIT), value=st.binary(max_size=200), is_more=st.booleans())
def test_whatever_comes_is_taken_or_refused(*, key: str, value: bytes, is_more: bool) -> None:
    inbox = Inbox()
    try:
        complete: list[Any] = inbox.put([ServiceInfo(key, value)], is_more=is_more)
    except Fault:
        return
    assert is_more or b"".join(item.raw for _, _, item in complete) == value
    assert len(value) <= VALUE_LIMIT


def _is_item(value: bytes) -> bool:
    try:
        cbor.read(value)
    except cbor.Malformed:
        return False
    return True
