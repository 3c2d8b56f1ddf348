"""What device and owner say once the tunnel is open: who may speak when, what goes into a message, what is too much.

FDO 1.1, 3.8 and 5.6; the owner of the second half is written from the facts alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from enroll.errors import ProtocolViolation
from enroll.fdo import cbor
from enroll.fdo.devmod import DeviceDescription
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.service_info import (
    PIECES_LIMIT,
    ROUNDS_LIMIT,
    TOTAL_LIMIT,
    VALUE_LIMIT,
    Inbox,
    Modules,
    Outbox,
    Statement,
)
from enroll.fdo.to2 import IDLE_DELAY
from enroll.fdo.to2_messages import ServiceInfo
from enroll.trust import CERTIFICATE_LIMIT, CERTIFICATES_LIMIT
from tests.support.clocks import SteppedClock
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.in_process import DESCRIPTION, Onboarding, ScriptedChannel
from tests.support.fdo.scripted_csr import DEVMOD, ScriptedCsr
from tests.support.fdo.scripted_owner import Piece, Said, Says
from tests.support.pki import new_key

DEVICE, MANUFACTURER, OWNER = (new_key() for _ in range(3))
TRUE, FALSE = b"\xf5", b"\xf4"
INVALID, MALFORMED = ErrorCode.INVALID_MESSAGE, ErrorCode.MESSAGE_BODY


@dataclass
class Parrot:
    """A module that says what it hears, and is complete after "end"."""

    name: str = "parrot"
    heard: list[tuple[str, Any]] = field(default_factory=list)
    is_complete: bool = False
    begun: int = 0

    def begin(self) -> Sequence[Statement]:
        self.begun += 1
        return [Statement(self.name, "hello", 1)]

    def receive(self, name: str, value: cbor.Item) -> Sequence[Statement]:
        self.heard.append((name, codec.read(value.raw)))
        self.is_complete = name == "end"
        return [] if self.is_complete else [Statement(self.name, name, cbor.Raw(value.raw))]


def piece(key: str, value: bytes) -> ServiceInfo:
    return ServiceInfo(key, value)


def put(*pieces: ServiceInfo, is_more: bool = False) -> list[tuple[str, str, Any]]:
    complete = Inbox().put(pieces, is_more=is_more)
    return [(module, name, codec.read(value.raw)) for module, name, value in complete]


# --- Inbox


def test_the_pieces_of_a_value_are_put_together() -> None:
    assert put(piece("m:k", b"\x83\x01"), piece("m:k", b"\x02"), piece("m:k", b"\x03")) == [("m", "k", [1, 2, 3])]


def test_a_value_goes_on_in_the_next_message_where_there_is_more() -> None:
    inbox = Inbox()
    assert inbox.put([piece("m:k", b"\x82\x01")], is_more=True) == []
    ((module, name, value),) = inbox.put([piece("m:k", b"\x02")], is_more=False)
    assert (module, name, value.raw) == ("m", "k", b"\x82\x01\x02")


def test_a_key_may_follow_itself_with_another_value() -> None:
    values = [("m", "k", 1), ("m", "k", [2]), ("m", "j", 3), ("m", "k", 4)]
    assert put(*(piece(f"{module}:{name}", codec.write(value)) for module, name, value in values)) == values


def test_values_are_given_out_in_their_order_over_messages() -> None:
    inbox = Inbox()
    first = inbox.put([piece("m:a", b"\x01"), piece("m:b", b"\x82\x02")], is_more=True)
    second = inbox.put([piece("m:b", b"\x03"), piece("m:c", b"\x04")], is_more=True)
    third = inbox.put([], is_more=False)
    assert [[name for _, name, _ in said] for said in (first, second, third)] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([("m:k", b"\x82\x01"), ("m:j", b"\x02"), ("m:k", b"\x02")], MALFORMED),
        ([("m:k", b"\x82\x01")], MALFORMED),
        ([("m:k", b"\x01\xff")], MALFORMED),
        ([("m:k", b"")], INVALID),
        ([("m:k", b""), ("m:j", b"\x01")], INVALID),
        ([("", b"\x01")], INVALID),
        ([("", b"\x82"), ("m:k", b"\x01\x01")], MALFORMED),
        ([("k", b"\x01")], INVALID),
        ([(":k", b"\x01")], INVALID),
        ([("m:", b"\x01")], INVALID),
    ],
    ids=[
        "another key in between",
        "not complete at the end",
        "garbage behind it",
        "no value",
        "no value, then another key",
        "no key",
        "no key, then the rest with another",
        "no colon",
        "no module",
        "no word",
    ],
)
def test_what_is_not_put_together_properly_is_refused(pieces: list[Piece], code: ErrorCode) -> None:
    with pytest.raises(Fault) as raised:
        put(*(piece(*each) for each in pieces))
    assert raised.value.code == code


def test_a_value_is_at_most_so_long() -> None:
    inbox = Inbox()
    inbox.put([piece("m:k", codec.write(bytes(VALUE_LIMIT - 5))[:-1])], is_more=True)
    inbox.put([piece("m:k", b"\x00")], is_more=True)
    with pytest.raises(Fault, match="longer"):
        inbox.put([piece("m:k", bytes(6))], is_more=True)


def test_a_session_has_at_most_so_many_bytes() -> None:
    inbox, value = Inbox(), codec.write(bytes(VALUE_LIMIT - 5))
    size = len("m:k") + len(value)
    for _ in range(TOTAL_LIMIT // size):
        inbox.put([piece("m:k", value)], is_more=False)
    with pytest.raises(Fault, match="more service info"):
        inbox.put([piece("m:k", value)], is_more=False)


def test_a_session_has_at_most_so_many_pieces() -> None:
    inbox = Inbox()
    inbox.put([piece("m:k", b"")] * PIECES_LIMIT, is_more=True)
    with pytest.raises(Fault, match="more service info"):
        inbox.put([piece("m:k", b"")], is_more=True)


def test_the_certificates_that_are_taken_fit_into_a_session() -> None:
    """Each comes at most twice, as one of the CA and beside the one that was issued, in base64."""
    assert TOTAL_LIMIT > 2 * CERTIFICATES_LIMIT * CERTIFICATE_LIMIT * 4 // 3
    assert TOTAL_LIMIT <= 1 << 20


def test_a_session_has_at_most_so_many_values() -> None:
    """Each may be answered: without a limit, 1 MiB of `true` would become 200 MB of answers that wait."""
    inbox, values = Inbox(), b"\xf5" * 8192
    for _ in range(PIECES_LIMIT // len(values)):
        inbox.put([piece("m:active", values)], is_more=False)
    with pytest.raises(Fault, match="more service info"):
        inbox.put([piece("m:active", b"\xf5")], is_more=False)


def test_small_pieces_of_a_large_value_do_not_take_more_time_than_the_value() -> None:
    # An array of 8000 parts that never gets its last one: read again with each piece, it would take minutes.
    inbox = Inbox()
    pieces = [piece("m:k", b"\x99\x1f\x40" + bytes(7999)), *[piece("m:k", b"")] * 8_000]
    begin = time.monotonic()
    inbox.put(pieces, is_more=True)
    assert time.monotonic() - begin < 1


# --- Outbox


def test_what_fits_goes_into_one_message() -> None:
    outbox = Outbox(1300)
    outbox.put([Statement("m", "a", 1), Statement("m", "b", "two")])
    assert outbox.take() == (False, (piece("m:a", b"\x01"), piece("m:b", b"\x63two")))
    assert outbox.take() == (False, ())


def test_what_does_not_fit_comes_in_pieces_and_the_last_says_that_nothing_follows() -> None:
    outbox = Outbox(256)
    outbox.put([Statement("m", "k", bytes(600)), Statement("m", "j", 1)])
    taken = [outbox.take() for _ in range(3)]
    assert [is_more for is_more, _ in taken] == [True, True, False]
    assert [info.key for _, infos in taken for info in infos] == ["m:k", "m:k", "m:k", "m:j"]
    assert b"".join(info.value for _, infos in taken for info in infos[:1]) == codec.write(bytes(600))


def test_a_value_that_does_not_fit_begins_a_message_of_its_own() -> None:
    # go-fdo takes no pieces of devmod.
    outbox = Outbox(256)
    outbox.put([Statement("m", "a", bytes(100)), Statement("m", "b", bytes(200)), Statement("m", "c", 1)])
    assert [[info.key for info in outbox.take()[1]] for _ in range(2)] == [["m:a"], ["m:b", "m:c"]]


@pytest.mark.parametrize("size", [0, 1, 255])
def test_256_bytes_can_always_be_sent(size: int) -> None:
    outbox = Outbox(size)
    outbox.put([Statement("m", "k", bytes(600))])
    _, (info,) = outbox.take()
    assert len(codec.write([True, [[info.key, info.value]]])) in range(240, 257)


def test_the_longest_key_that_is_taken_can_be_answered_in_the_smallest_message() -> None:
    modules, outbox = Modules([]), Outbox(0)
    outbox.put(modules.receive("m" * 126, "active", cbor.read(TRUE)))
    is_more, (info,) = outbox.take()
    assert (is_more, info.value) == (False, FALSE)


# --- Modules


def test_a_module_begins_when_it_is_activated() -> None:
    parrot = Parrot()
    said = Modules([parrot]).receive("parrot", "active", cbor.read(TRUE))
    assert said == [Statement("parrot", "active", value=True), Statement("parrot", "hello", 1)]


def test_a_module_that_is_activated_twice_begins_once() -> None:
    parrot = Parrot()
    modules = Modules([parrot])
    modules.receive("parrot", "active", cbor.read(TRUE))
    assert modules.receive("parrot", "active", cbor.read(TRUE)) == []
    assert parrot.begun == 1


def test_what_is_said_to_an_inactive_module_is_refused() -> None:
    parrot = Parrot()
    with pytest.raises(Fault, match="not active"):
        Modules([parrot]).receive("parrot", "word", cbor.read(TRUE))
    assert parrot.heard == []


def test_active_is_a_boolean() -> None:
    with pytest.raises(Fault):
        Modules([Parrot()]).receive("parrot", "active", cbor.read(b"\x01"))


def test_a_module_does_not_end_before_it_is_complete() -> None:
    parrot = Parrot()
    modules = Modules([parrot])
    modules.receive("parrot", "active", cbor.read(TRUE))
    with pytest.raises(Fault, match="before it is complete"):
        modules.receive("parrot", "active", cbor.read(FALSE))
    parrot.is_complete = True
    assert modules.receive("parrot", "active", cbor.read(FALSE)) == []


@pytest.mark.parametrize(
    "module", ["fdo.command", "fdo.download", "fdo.upload", "fdo.wget", "fdo_sys", "devmod", "FDO.CSR", "fdo.csr "]
)
def test_an_unknown_module_is_answered_inactive_and_otherwise_ignored(module: str) -> None:
    modules = Modules([Parrot("fdo.csr")])
    assert modules.receive(module, "active", cbor.read(TRUE)) == [Statement(module, "active", value=False)]
    assert modules.receive(module, "command", cbor.read(b"\x62sh")) == []
    assert modules.receive(module, "execute", cbor.read(b"\x81\x40")) == []


# --- devmod


def test_devmod_says_what_is_required_in_its_order() -> None:
    said = DESCRIPTION.statements(["fdo.csr", "scanseal.renewal"])
    assert {each.module for each in said} == {"devmod"}
    assert [each.name for each in said] == DEVMOD
    assert [each.value for each in said] == [
        True,
        "Linux",
        "x86_64",
        "12",
        "Example CT",
        ":",
        "x86_64",
        3,
        [0, 3, "devmod", "fdo.csr", "scanseal.renewal"],
    ]


def test_what_this_machine_says_of_itself_is_never_empty() -> None:
    # An owner refuses a device that leaves out something required.
    said = DeviceDescription.of_this_machine("Example CT").statements(["fdo.csr"])
    assert all(each.value for each in said)


# --- who may speak when


def onboarding(*script: Said) -> Onboarding:
    """An owner that hears devmod, and then says `script`."""
    says = Says([Said(is_more=False, is_done=False), *script])
    return Onboarding.new(DEVICE, MANUFACTURER, OWNER, says)


def saying(*pieces: Piece) -> Said:
    return Said(is_more=False, is_done=False, pieces=pieces)


def saying_more(*pieces: Piece) -> Said:
    return Said(is_more=True, is_done=False, pieces=pieces)


def done(*pieces: Piece) -> Said:
    return Said(is_more=False, is_done=True, pieces=pieces)


def talk(case: Onboarding, parrot: Parrot) -> list[tuple[str, Any]]:
    """What the owner heard after devmod."""
    case.run(ScriptedChannel(case.owner), [parrot])
    assert isinstance(case.owner.module, Says)
    return [(key, codec.read(value)) for key, value in case.owner.module.heard if not key.startswith("devmod:")]


def refused(case: Onboarding, code: ErrorCode, parrot: Parrot | None = None) -> str:
    channel = ScriptedChannel(case.owner)
    with pytest.raises(ProtocolViolation) as raised:
        case.run(channel, [parrot or Parrot()])
    assert [(each.previous, ErrorCode(each.code)) for each in channel.reported] == [(69, code)]
    assert not case.owner.is_done
    return raised.value.what


ACTIVE = ("parrot:active", TRUE)
END = ("parrot:end", TRUE)


def test_a_module_is_activated_answers_and_is_complete() -> None:
    parrot = Parrot()
    case = onboarding(saying(ACTIVE), saying(("parrot:word", b"\x07")), saying(END), done())
    assert talk(case, parrot) == [("parrot:active", True), ("parrot:hello", 1), ("parrot:word", 7)]
    assert parrot.heard == [("word", 7), ("end", True)]


def test_the_device_says_nothing_while_the_owner_has_more() -> None:
    parrot = Parrot()
    case = onboarding(saying_more(ACTIVE), saying_more(("parrot:word", b"\x82\x07")), saying(("parrot:word", b"\x08")))
    module = case.owner.module
    assert isinstance(module, Says)
    module.script += [saying(END), done()]
    heard: list[int] = []
    reply = module.reply

    def counted(pieces: Sequence[Piece], *, is_more: bool) -> Said:
        heard.append(len(pieces))
        return reply(pieces, is_more=is_more)

    module.reply = counted  # type: ignore[method-assign]
    assert talk(case, parrot)[-1] == ("parrot:word", [7, 8])
    assert heard == [9, 0, 0, 0, 3, 0]


@pytest.mark.parametrize(
    "answer", [saying(ACTIVE), saying_more(), done()], ids=["says something", "has more", "is done"]
)
def test_the_owner_says_nothing_while_the_device_has_more(answer: Said) -> None:
    case = Onboarding.new(DEVICE, MANUFACTURER, OWNER, Interrupting(answer))
    case.owner.hooks.payload[67] = lambda _: [256]
    assert "speaks while the device has more" in refused(case, INVALID, Parrot("a module with a long name" * 5))


@dataclass
class Interrupting:
    """Speaks when the device has more to say."""

    answer: Said

    def reply(self, pieces: Sequence[Piece], *, is_more: bool) -> Said:
        assert is_more
        return self.answer


def test_the_owner_is_not_done_and_has_more() -> None:
    refused(onboarding(Said(is_more=True, is_done=True)), INVALID)


@pytest.mark.parametrize(
    "script", [[done()], [saying(ACTIVE), done()], [done(ACTIVE)]], ids=["at once", "in between", "with its activation"]
)
def test_the_owner_is_not_done_before_every_module_is_complete(script: list[Said]) -> None:
    refused(onboarding(*script), INVALID)


def test_the_owner_may_be_done_with_its_last_word() -> None:
    parrot = Parrot()
    talk(onboarding(saying(ACTIVE), done(END)), parrot)
    assert parrot.is_complete


def test_the_owner_is_not_done_in_the_middle_of_a_value() -> None:
    refused(onboarding(saying(ACTIVE), done(("parrot:end", b"\x82\x01"))), MALFORMED)


def test_a_value_does_not_go_on_where_the_owner_said_that_there_is_no_more() -> None:
    refused(onboarding(saying(ACTIVE), saying(("parrot:word", b"\x82\x01"))), MALFORMED)


def test_a_value_is_not_split_by_another_one() -> None:
    pieces = [("parrot:word", b"\x82\x01"), ("parrot:other", b"\x01"), ("parrot:word", b"\x01")]
    refused(onboarding(saying(ACTIVE), saying(*pieces)), MALFORMED)


def test_a_value_is_not_split_over_messages_with_another_one_in_between() -> None:
    script = [saying_more(("parrot:word", b"\x82\x01")), saying(("parrot:other", b"\x01"), ("parrot:word", b"\x01"))]
    refused(onboarding(saying(ACTIVE), *script), MALFORMED)


def test_nothing_is_said_to_a_module_before_it_is_active() -> None:
    parrot = Parrot()
    assert "not active" in refused(onboarding(saying(("parrot:word", b"\x07"))), INVALID, parrot)
    assert parrot.heard == []


def test_an_unknown_module_is_answered_inactive() -> None:
    orders = [("fdo.command:active", TRUE), ("fdo.command:command", b"\x62sh"), ("fdo.command:execute", b"\x80")]
    case = onboarding(saying(*orders), saying(ACTIVE), saying(END), done())
    assert talk(case, Parrot())[0] == ("fdo.command:active", False)


def test_devmod_is_not_the_owners_to_speak() -> None:
    case = onboarding(saying(("devmod:active", TRUE), ("devmod:os", b"\x61x")), saying(ACTIVE), saying(END), done())
    talk(case, Parrot())
    assert isinstance(case.owner.module, Says)
    assert case.owner.module.heard[9:11] == [("devmod:active", FALSE), ("parrot:active", TRUE)]


def test_service_info_ends_after_so_many_rounds() -> None:
    case = onboarding(saying(ACTIVE), *[saying_more()] * ROUNDS_LIMIT)
    assert "has not ended" in refused(case, INVALID)
    assert case.owner.asked.count(68) == ROUNDS_LIMIT


def test_an_owner_that_needs_a_moment_is_given_some() -> None:
    # It asks its CA, say; whoever asked again and again at once would soon have asked too often.
    case = onboarding(saying(ACTIVE), saying(), saying(), saying(), saying(END), done())
    clock = SteppedClock()
    case.clock = clock
    talk(case, Parrot())
    assert clock.elapsed == pytest.approx(2 * IDLE_DELAY)


def test_an_owner_that_never_says_anything_is_given_up() -> None:
    case = onboarding(*[saying()] * ROUNDS_LIMIT)
    assert "has not ended" in refused(case, INVALID)


def test_an_owner_that_never_stops_to_talk_is_stopped() -> None:
    pieces = [(f"module{number}:active", TRUE) for number in range(500)]
    case = onboarding(*[saying_more(*pieces)] * ROUNDS_LIMIT)
    assert "more service info" in refused(case, INVALID)
    assert case.owner.asked.count(68) <= 2 + PIECES_LIMIT // len(pieces)


@pytest.mark.parametrize("size", [256, 300, 512, 1300, 4096, 65535])
def test_a_certificate_comes_through_messages_of_any_size(size: int) -> None:
    csr = ScriptedCsr(piece_size=size - 60)
    case = Onboarding.new(DEVICE, MANUFACTURER, OWNER, csr)
    case.owner.max_service_info = case.service_info_size = size
    module = case.csr()
    case.run(ScriptedChannel(case.owner), [module])
    (certificate,) = module.certificates
    assert certificate.public_key() == case.identity_key.public_key()
    assert module.ca_certificates == (csr.ca.certificate,)
    assert [key for key, _ in csr.heard[9:]] == [
        "fdo.csr:active",
        "fdo.csr:cacerts-req",
        "fdo.csr:csrattrs-req",
        "fdo.csr:simpleenroll-req",
        "fdo.csr:active",
    ]
