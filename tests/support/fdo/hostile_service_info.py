"""What an owner may say once the tunnel is open: message 69, FDO 1.1, 5.5.11, and the module fdo.csr."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from enroll.fdo.service_info import PIECES_LIMIT, ROUNDS_LIMIT, TOTAL_LIMIT
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.hostile_case import (
    INTERNAL,
    INVALID,
    MALFORMED,
    ONBOARDS,
    SAID_NO,
    UNREACHABLE,
    Arrange,
    Case,
    Chapter,
    Ending,
    refused,
)
from tests.support.fdo.hostile_changes import again, hangs_up, nested, nth, owner_error, payload, since
from tests.support.fdo.hostile_stage import Stage

_CLAUSE, _MODULES, _CSR = "FDO 1.1, 5.5.11", "FDO 1.1, 3.8", "fdo.csr 1.0"
# What the right owner says, by the number of the answer; one statement at a time.
_SILENCE, _ACTIVE, _CA_CERTIFICATES, _ATTRIBUTES, _CERTIFICATE, _END = range(1, 7)
_REMOTE: Final = ("fdo.command", "fdo.download", "fdo.upload", "fdo.wget")
_FULL: Final = bytes(60_000)
_AROUND: Final = 24  # messages of a run that are not 68

Piece = list[Any]


def _case(name: str, clause: str, what: str, arrange: Arrange, ending: Ending, **options: Any) -> Case:
    return Case(f"69-{name}", 69, clause, what, arrange, ending, **options)


def _piece(key: str, value: Any) -> Piece:
    return [key, codec.write(value)]


def _says(number: int, *pieces: Piece, is_more: bool = False, is_done: bool = False) -> Arrange:
    """In the place of the answer of that number."""
    return payload(69, nth(number, lambda _: [is_more, is_done, list(pieces)]))


def _says_for_ever(pieces: Callable[[int], list[Piece]], *, is_more: bool = True) -> Arrange:
    """The same from the second answer on, for ever; `pieces` is given a number that counts."""

    def arrange(stage: Stage) -> None:
        counter = iter(range(1_000_000))
        stage.owner.hooks.payload[69] = since(_ACTIVE, lambda _: [is_more, False, pieces(next(counter))])

    return arrange


def _says_raw(number: int, key: Any, value: Any) -> Arrange:
    return _says(number, [key, value])


def _slowly(stage: Stage) -> None:
    """Each answer comes late, and there is always one more."""
    stage.pause = 25.0
    _says_for_ever(lambda _: [])(stage)


def _small_messages(then: Arrange) -> Arrange:
    """The scanner needs several messages to describe itself."""

    def arrange(stage: Stage) -> None:
        payload(67, lambda _: [256])(stage)
        then(stage)

    return arrange


def _remote_control(stage: Stage) -> None:
    """After the certificate, the modules that would give control of the scanner."""
    orders = [_piece(f"{module}:active", value=True) for module in _REMOTE]
    orders += [
        _piece("fdo.command:command", "/bin/sh"),
        _piece("fdo.command:execute", value=True),
        _piece("fdo.download:name", "/etc/passwd"),
        _piece("fdo.download:data", b"root::0:0"),
        _piece("fdo.upload:need-sha", value=True),
        _piece("fdo.wget:url", "http://127.0.0.1:1/"),
    ]
    _says(_END, *orders)(stage)


_FLAGS = (
    _case(
        "done-at-once",
        _CLAUSE,
        "It is done before it has said anything.",
        _says(_SILENCE, is_done=True),
        refused(69, INVALID),
    ),
    _case(
        "done-before-the-certificate",
        _CSR,
        "It is done before it has given a certificate.",
        _says(_ATTRIBUTES, is_done=True),
        refused(69, INVALID),
    ),
    _case(
        "done-and-more",
        _CLAUSE,
        "It is done, and has more to say.",
        _says(_ACTIVE, is_done=True, is_more=True),
        refused(69, INVALID),
    ),
    _case(
        "done-within-a-value",
        _CLAUSE,
        "It is done in the middle of a value.",
        _says(_CA_CERTIFICATES, ["fdo.csr:cacerts-res", b"\x78\x40half"], is_done=True),
        refused(69, MALFORMED),
    ),
    _case(
        "ends-within-a-value",
        _CLAUSE,
        "It has no more to say, in the middle of a value.",
        _says_raw(_CA_CERTIFICATES, "fdo.csr:cacerts-res", b"\x78\x40half"),
        refused(69, MALFORMED),
    ),
    _case(
        "speaks-at-the-same-time",
        _CLAUSE,
        "It speaks while the scanner has more to say.",
        _small_messages(_says(_SILENCE, _piece("fdo.csr:active", value=True))),
        refused(69, INVALID),
    ),
    _case(
        "done-at-the-same-time",
        _CLAUSE,
        "It is done while the scanner has more to say.",
        _small_messages(_says(_SILENCE, is_done=True)),
        refused(69, INVALID),
    ),
    _case(
        "flags-as-numbers",
        _CLAUSE,
        "Its flags are numbers.",
        payload(69, lambda parts: [0, 0, parts[2]]),
        refused(69, MALFORMED),
    ),
    _case(
        "old-empty-list",
        _CLAUSE,
        "Its list of nothing holds an empty list.",
        payload(69, lambda _: [False, False, [[]]]),
        refused(69, MALFORMED),
    ),
    _case("twice", "FDO 1.1, 4.5", "The first answer comes again.", again(69, 69), refused(69, INVALID)),
    _case("is-67-again", "FDO 1.1, 4.5", "Message 67 comes in its place.", again(67, 69), refused(69, INVALID)),
    _case("is-65-again", "FDO 1.1, 4.5", "Message 65 comes in its place.", again(65, 69), refused(69, INVALID)),
    _case("error", "FDO 1.1, 5.1", "It says no.", owner_error(69), SAID_NO),
    _case("hangs-up", "RFC 9112 9.6", "It closes the connection.", hangs_up(69), UNREACHABLE),
)
_ENDLESS = (
    _case(
        "more-for-ever",
        _CLAUSE,
        "It always has more to say, and says nothing.",
        _says_for_ever(lambda _: []),
        refused(69, INVALID),
        requests=ROUNDS_LIMIT + _AROUND,
        seconds=30.0,
    ),
    _case(
        "nothing-for-ever",
        _CLAUSE,
        "It says nothing, and is never done.",
        _says_for_ever(lambda _: [], is_more=False),
        refused(69, INVALID),
        requests=ROUNDS_LIMIT + _AROUND,
        seconds=30.0,
    ),
    _case(
        "late-for-ever",
        _CLAUSE,
        "Each answer takes 25 seconds, and there is always one more.",
        _slowly,
        refused(69, INTERNAL),
        settings={"timeout": 30},
        requests=32,
    ),
    _case(
        "value-without-end",
        _CLAUSE,
        "One value goes on for ever.",
        _says_for_ever(lambda _: [["fdo.csr:cacerts-res", _FULL]]),
        refused(69, INVALID),
    ),
    _case(
        "value-without-end-in-pieces",
        _CLAUSE,
        "One value goes on for ever, in pieces of no bytes.",
        _says_for_ever(lambda _: [["fdo.csr:cacerts-res", b""]] * 2000),
        refused(69, INVALID),
        requests=PIECES_LIMIT // 2000 + _AROUND,
    ),
    _case(
        "values-without-end",
        _CLAUSE,
        "It speaks of an unknown module for ever, 60,000 bytes at a time.",
        _says_for_ever(lambda number: [[f"x{number}:y", codec.write(_FULL)]]),
        refused(69, INVALID),
        requests=TOTAL_LIMIT // len(_FULL) + _AROUND,
    ),
    _case(
        "modules-without-end",
        _MODULES,
        "It activates 2,000 unknown modules with each message, for ever.",
        _says_for_ever(lambda number: [_piece(f"m{number}.{each}:active", value=True) for each in range(2000)]),
        refused(69, INVALID),
        requests=PIECES_LIMIT // 2000 + _AROUND,
    ),
    _case(
        "statements-without-end",
        _MODULES,
        "It activates an unknown module 8,000 times with each message, for ever.",
        _says_for_ever(lambda number: [[f"x{number}:active", b"\xf5" * 8000]]),
        refused(69, INVALID),
    ),
)
_WORDS = (
    _case(
        "before-activation",
        _MODULES,
        "It speaks of fdo.csr before it has activated it.",
        _says(_SILENCE, _piece("fdo.csr:cacerts-res", "MAA=")),
        refused(69, INVALID),
    ),
    _case(
        "deactivation",
        _MODULES,
        "It ends fdo.csr before there is a certificate.",
        _says(_CA_CERTIFICATES, _piece("fdo.csr:active", value=False)),
        refused(69, INVALID),
    ),
    _case(
        "remote-control",
        _MODULES,
        "It wants to run commands and to fetch and bring files: no such module is active here.",
        _remote_control,
        ONBOARDS,
    ),
    _case(
        "active-as-a-number",
        _MODULES,
        "It activates a module by the number 1.",
        _says(_ACTIVE, _piece("fdo.csr:active", 1)),
        refused(69, MALFORMED),
    ),
    _case(
        "no-module", _MODULES, "It names no module.", _says(_ACTIVE, _piece("active", value=True)), refused(69, INVALID)
    ),
    _case(
        "no-word",
        _MODULES,
        "It names a module, and no word of it.",
        _says(_ACTIVE, _piece("fdo.csr:", value=True)),
        refused(69, INVALID),
    ),
    _case(
        "key-of-200-bytes",
        _MODULES,
        "A key has 200 bytes.",
        _says(_ACTIVE, _piece("x:" + "y" * 198, value=True)),
        refused(69, MALFORMED),
    ),
    _case(
        "key-of-bytes",
        _MODULES,
        "A key is a string of bytes.",
        _says_raw(_ACTIVE, b"fdo.csr:active", b"\xf5"),
        refused(69, MALFORMED),
    ),
    _case("no-value", _MODULES, "A key has no value.", _says_raw(_ACTIVE, "fdo.csr:active", b""), refused(69, INVALID)),
    _case(
        "value-of-garbage",
        _MODULES,
        "A value is no CBOR.",
        _says_raw(_ACTIVE, "fdo.csr:active", b"\xff"),
        refused(69, MALFORMED),
    ),
    _case(
        "value-that-is-a-bomb",
        "RFC 8949 10",
        "A value is an array in an array, and so on 30,000 times.",
        _says_raw(_ACTIVE, "x:y", nested(b"\x81", 30_000)),
        refused(69, MALFORMED),
    ),
)
CHAPTER = Chapter("Service info", (*_FLAGS, *_ENDLESS, *_WORDS))
